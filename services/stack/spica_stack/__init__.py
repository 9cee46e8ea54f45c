"""Selects images by rules, plans a stack, resamples and combines its members."""
