"""Who may call, for what, how fast and how much."""
