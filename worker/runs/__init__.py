"""Runs: imports and reconciliations, and what carries them."""
