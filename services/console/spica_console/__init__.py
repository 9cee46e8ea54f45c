"""What people touch: the `spica` command, the HTTP API and the live page."""
