"""Stages: which model runs where, how it got there, and the way back."""
