"""Data in: files of several shapes become rows of code and description."""
