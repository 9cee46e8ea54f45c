"""From counts to magnitudes."""
