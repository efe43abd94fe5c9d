"""The network that turns embeddings into codes: its layers, its training, and its package."""
