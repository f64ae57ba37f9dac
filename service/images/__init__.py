"""Pixels -> files: sizes, backgrounds, encoding, animations."""
