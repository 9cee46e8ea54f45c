"""Pure calibration: arrays and dataclasses in and out."""
