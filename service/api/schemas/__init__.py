"""What the endpoints answer, one file for each."""
