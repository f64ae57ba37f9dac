"""Exports -> the Model Store -> loaded models."""
