"""One article of each category, drawn at random."""
