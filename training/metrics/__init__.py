"""Two sets of images -> distances and shares, on frozen features."""
