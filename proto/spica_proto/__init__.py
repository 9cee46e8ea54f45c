"""The contract: who says what to whom. Knows nothing else of Spica."""
