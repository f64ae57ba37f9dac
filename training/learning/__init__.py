"""Prepared dataset -> training run: the loop, its settings and what it keeps."""
