"""Which pixels are not to be trusted."""
