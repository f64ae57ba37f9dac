"""A run and photos -> a network that enlarges what its generator makes."""
