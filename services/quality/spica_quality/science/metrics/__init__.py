"""The figures of a CCD and of an image."""
