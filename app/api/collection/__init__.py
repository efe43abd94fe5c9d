"""Garbage collection: its plan."""
