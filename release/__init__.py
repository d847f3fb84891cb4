"""What a release is made of, from a commit: `python -m release`, or `make release`."""
