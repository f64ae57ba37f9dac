"""The operations of augmentation, by kind."""
