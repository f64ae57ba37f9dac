"""What lasts: one database, and its tables."""
