"""Reproductions: a model is made again from its recorded inputs, and the two are compared."""
