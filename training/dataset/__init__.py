"""Merging cleaned sources into one dataset of weighted pairs of text and code, and the cleaning report."""
