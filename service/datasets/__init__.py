"""Labelled synthetic sets: which images, under which names, in which archive."""
