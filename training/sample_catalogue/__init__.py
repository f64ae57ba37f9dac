"""Rendered product photos: what the demo and the tests use where no catalogue is given."""
