"""The locks in `requirements/`: complete, so that an installer has nothing to resolve."""
