"""Laws that hold for whatever the API can carry."""
