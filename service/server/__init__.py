"""The HTTP server, in one process."""
