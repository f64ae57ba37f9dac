"""Headers and bodies -> values: Accept, JSON, multipart forms."""
