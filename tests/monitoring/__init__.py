"""The alerts and the dashboard that the chart ships: checked by promtool, and held against real `/metrics`."""
