"""A generated shop, and what is true of it."""
