"""Prepared dataset -> watermark: two small networks that mark pictures and find the mark again."""
