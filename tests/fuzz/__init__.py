"""Programs that look for files which the verifier cannot stand."""
