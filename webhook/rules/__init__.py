"""What the webhook decides and why: pure, same input, same answer."""
