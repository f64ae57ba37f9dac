"""A picture -> whether it is ours, by which marks."""
