"""What a file says of its origin, and whether that is true."""
