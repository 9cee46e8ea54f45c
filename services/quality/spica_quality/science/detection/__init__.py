"""Where there is something: pixels into sources."""
