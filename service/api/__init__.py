"""The HTTP API: what a request passes, from its headers to the response."""
