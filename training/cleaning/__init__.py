"""Cleaners: what they do to codes and descriptions, and the pipelines that they form."""
