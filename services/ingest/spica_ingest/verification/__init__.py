"""Reading files that may be anything, in isolation, and judging them."""
