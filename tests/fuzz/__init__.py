"""Structure-aware mutation of what other people write: `make fuzz`."""
