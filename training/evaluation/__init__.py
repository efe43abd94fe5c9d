"""Classifying with a finished model, and measuring how good its answers are."""
