"""What peers without credentials send, many at once, and what it costs others."""
