"""Pixels and sky, no plumbing: FITS in and out, WCS, robust statistics, LDAC, instrument profiles."""
