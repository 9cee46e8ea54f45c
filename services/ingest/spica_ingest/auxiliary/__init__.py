"""Calibration frames that images name in their headers."""
