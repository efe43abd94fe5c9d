"""Embeddings of several transformers side by side, for a network that takes all of them."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from training.distributed import Embeddings
from training.embedding.encoder import Encoder
from training.progress import Progress


class Embedder(Protocol):
    """What turns texts into the embeddings that a network takes."""

    def encode(self, texts: Sequence[str], progress: Progress) -> Embeddings: ...
    def encode_one(self, text: str) -> Embeddings: ...


class Joined:
    """Several encoders as one. An embedding consists of theirs, in their order."""

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        self._encoders = encoders

    def encode(self, texts: Sequence[str], progress: Progress) -> Embeddings:
        """(len(texts), sum of their dimensions) float32."""
        return np.concatenate([one.encode(texts, progress) for one in self._encoders], axis=1)

    def encode_one(self, text: str) -> Embeddings:
        """(sum of their dimensions,) float32."""
        return np.concatenate([one.encode_one(text) for one in self._encoders])
