"""Models: what was published, how it was measured, and whether it passed."""
