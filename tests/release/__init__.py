"""A release is made, twice, and used: the same bytes, a wheel that runs alone, metadata that is true."""
