"""Arrays -> files: sizes, backgrounds, encoding, animations."""
