"""Uploaded files -> arrays."""
