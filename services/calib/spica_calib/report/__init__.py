"""Pages, pictures and numbers of calibrations, for people."""
