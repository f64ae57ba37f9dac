"""Response bodies, one file for each endpoint."""
