"""Lineage: what a model was made from, and which models an input went into."""
