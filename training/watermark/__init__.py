"""Prepared dataset -> watermark: two small networks that mark images and detect the mark."""
