"""The plumbing every service stands on: bus, store, dispatch, provenance, settings, run and stop."""
