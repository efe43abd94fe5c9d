"""Carries garbage collection out: marks and sweeps models, then what only they and ended builds needed."""
