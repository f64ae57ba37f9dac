"""Two sets of images -> distances and coverage, on frozen features."""
