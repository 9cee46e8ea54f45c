"""Images placed on nodes."""
