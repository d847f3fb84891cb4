"""The HTTPS server that answers the API server."""
