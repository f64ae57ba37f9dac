"""Photos -> prepared dataset."""
