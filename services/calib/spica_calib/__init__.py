"""Calibration: where every pixel lies on the sky, and what its counts are worth."""
