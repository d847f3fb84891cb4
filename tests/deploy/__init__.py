"""The chart and what it renders: its values, a real API server's word on it, installing, upgrading, uninstalling."""
