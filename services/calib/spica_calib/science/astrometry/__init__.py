"""From sources and reference stars to where every pixel lies on the sky."""
