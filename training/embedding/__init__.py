"""Turning texts into embeddings: the transformer, the encoder, its process pool, and the cache."""
