"""What a calibration is worth, in numbers: residuals over the field, geometry of the CCDs, zero points."""
