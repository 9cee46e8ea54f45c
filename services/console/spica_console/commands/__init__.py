"""One module per command group. Bodies import what they need, so that every command starts fast."""
