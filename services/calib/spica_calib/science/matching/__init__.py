"""Which source is which star, from a rough pointing."""
