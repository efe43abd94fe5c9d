"""The network that turns embeddings into codes: its layers, its training, and the package that holds it."""
