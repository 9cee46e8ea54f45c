"""Choosing the images of a stack: thousands of candidates at a time, each with the rule that decided, and why."""
