"""Garbage collection: which models may go, and what has become of those that went."""
