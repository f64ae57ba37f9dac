"""Labelled synthetic sets: which pictures, under which names, in which archive."""
