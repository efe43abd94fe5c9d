"""Cleaning: the cleaners of codes and descriptions, and the pipelines that combine them."""
