"""Images -> feature vectors, by frozen networks pretrained on other images."""
