"""Run -> encoder: from a photo back to the style that paints it."""
