"""Prepared dataset -> training run: the loop, its settings and the files that it writes."""
