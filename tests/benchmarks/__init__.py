"""Benchmarks: ratios against peers, in paired, alternating runs. Never timed tests."""
