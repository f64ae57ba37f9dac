"""Two sets of pictures -> distances and shares, on frozen features."""
