"""A photo -> changed copies of it."""
