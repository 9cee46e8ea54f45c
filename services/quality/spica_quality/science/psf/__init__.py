"""The point-spread function over the field."""
