"""Where the facts of a decision come from: files or a cluster."""
