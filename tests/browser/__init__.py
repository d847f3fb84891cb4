"""The report in a real browser: what a reader sees, clicks, prints, and what never happens behind their back."""
