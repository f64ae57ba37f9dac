"""Run -> encoder: from a photo to the styles that reproduce it."""
