"""Images -> feature vectors, by networks that were trained on other images and stay frozen."""
