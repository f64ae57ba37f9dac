"""What must outlive a request: one database, by URL."""
