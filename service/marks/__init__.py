"""What a file says of its origin."""
