"""Ingest: takes files in, verifies them, files them away by run and filter, loads their headers."""
