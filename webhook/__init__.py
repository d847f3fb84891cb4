"""The admission webhook: rules decide, facts supply, server and command line serve."""

__version__ = "0.2.0"
