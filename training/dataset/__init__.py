"""Cleaned sources become one dataset: weighted pairs of text and code, with variants and a report."""
