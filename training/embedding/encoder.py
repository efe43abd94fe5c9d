"""Turns texts into embeddings of length 1.

An embedding depends only on its text, to the last bit. For that, texts are grouped by their number of tokens
so that none is padded, and each group runs in batches of one fixed shape, whatever else is in the batch and
whichever process runs it. Therefore a cache can supply any part of the embeddings.
"""

import hashlib
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from training.embedding.pool import Pool
from training.embedding.transformer import Transformer
from training.inputs.hardware import kind_of_machine
from training.progress import Phase, Progress
from training.threads import workers

if TYPE_CHECKING:
    from training.embedding.unpadded import Unpadded

Embeddings = npt.NDArray[np.float32]

# The number of tokens in a batch, roughly: batches of longer texts have fewer texts.
_TOKENS_OF_A_BATCH = 512
_TOKENISED_AT_ONCE = 8192
_BATCHES_AHEAD = 32
# Each finished batch keeps a file open until the call ends, and a process may have only 1,024 open files.
_BATCHES_OF_A_POOL_CALL = 128


class Encoder:
    """A sentence-transformer on one device, or in a process pool on several devices of the same kind."""

    def __init__(
        self,
        transformer: Transformer,
        device: str,
        batch_size: int,
        *,
        bfloat16: bool = False,
        pool: Sequence[str] = (),
    ) -> None:
        self.transformer = transformer
        self.device = torch.device(device)
        self._bfloat16 = bfloat16
        self._batch_size = batch_size
        self._pool = pool

    @cached_property
    def model(self) -> "Unpadded":
        # Imported here, because it takes seconds and a run whose embeddings are all cached does not need it.
        from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

        from training.embedding.unpadded import Unpadded  # noqa: PLC0415

        disable_progress_bar()  # type: ignore[no-untyped-call]
        # The processes of a pool receive the model from here and move it to their devices.
        device = "cpu" if self._pool else str(self.device)
        model = Unpadded(str(self.transformer.folder), device=device, local_files_only=True).eval()
        if self._bfloat16:
            model.multiply_in_bfloat16()
        return model

    def load(self) -> None:
        """Load the transformer now. Its files are not needed any more."""
        self.model.eval()

    @cached_property
    def fingerprint(self) -> str:
        """A digest of everything besides its text that an embedding depends on: model, libraries, machine."""
        parts = [self.transformer.sha256, *kind_of_machine(self.device)]
        parts += [str(self._batch_size), str(_TOKENS_OF_A_BATCH), str(self._bfloat16)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def dimension(self) -> int:
        return int(self.model.get_embedding_dimension() or 0)

    def encode(self, texts: Sequence[str], progress: Progress) -> Embeddings:
        """(len(texts), dimension) float32, each row of length 1."""
        out = np.empty((len(texts), self.dimension), dtype=np.float32)
        with progress.phase("embed", len(texts)) as phase:
            if self._pool:
                self._encode_in_pool(texts, out, phase)
            else:
                self._encode_here(texts, out, phase)
        return out

    def _encode_in_pool(self, texts: Sequence[str], out: Embeddings, phase: Phase) -> None:
        """Make separate calls for each length, so that every batch is full and no text is padded."""
        _, groups = self._by_length(texts)
        if not groups:
            return
        with Pool(self.model, self._pool) as pool:
            for rows, group in groups:
                for indices in _parts(group, rows * _BATCHES_OF_A_POOL_CALL):
                    out[indices] = pool.encode([texts[index] for index in indices], rows)
                    phase.advance(len(indices))

    def _encode_here(self, texts: Sequence[str], out: Embeddings, phase: Phase) -> None:
        with self._workers() as executor:
            waiting: deque[tuple[list[int], Future[Embeddings]]] = deque()
            for indices, tokens in self._batches(texts):
                waiting.append((indices, executor.submit(self._run, tokens, len(indices))))
                if len(waiting) > _BATCHES_AHEAD:
                    self._take(waiting.popleft(), out, phase)
            while waiting:
                self._take(waiting.popleft(), out, phase)

    def _workers(self) -> AbstractContextManager[ThreadPoolExecutor]:
        """On a CPU, one thread for each core, each with its own batches.

        Threads that share the arithmetic of a batch wait for each other at every layer, which is ten times
        slower if one other process is busy. The last bit would also depend on the number of cores.
        """
        return workers(torch.get_num_threads() if self.device.type == "cpu" else 1, threads=1)

    @staticmethod
    def _take(batch: tuple[list[int], Future[Embeddings]], out: Embeddings, phase: Phase) -> None:
        indices, vectors = batch
        out[indices] = vectors.result()
        phase.advance(len(indices))

    def encode_one(self, text: str) -> Embeddings:
        """(dimension,) float32: the embedding of one text, in a batch of its own."""
        (tokens,) = self.model.tokenise([text])
        one: Embeddings = self._run(tokens[None, :].astype(np.int64), 1)[0]
        return one

    def _batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], npt.NDArray[np.int64]]]:
        """Indices of texts of one length, and their tokens (rows, length). The length determines rows."""
        tokens, groups = self._by_length(texts)
        for rows, group in groups:
            for indices in _parts(group, rows):
                filled = indices + [indices[-1]] * (rows - len(indices))
                yield indices, np.stack([tokens[index] for index in filled]).astype(np.int64)

    def _by_length(
        self, texts: Sequence[str]
    ) -> tuple[list[npt.NDArray[np.int32]], list[tuple[int, list[int]]]]:
        """The tokens of the texts; and for each length, the rows of a batch and the indices of its texts."""
        tokens: list[npt.NDArray[np.int32]] = []
        for start in range(0, len(texts), _TOKENISED_AT_ONCE):
            tokens += self.model.tokenise(texts[start : start + _TOKENISED_AT_ONCE])
        by_length: dict[int, list[int]] = defaultdict(list)
        for index, ids in enumerate(tokens):
            by_length[len(ids)].append(index)
        # The longest texts come first, so that a lack of memory shows at once.
        return tokens, [
            (max(1, min(self._batch_size, _TOKENS_OF_A_BATCH // length)), by_length[length])
            for length in sorted(by_length, reverse=True)
        ]

    def _run(self, tokens: npt.NDArray[np.int64], count: int) -> Embeddings:
        """Tokens (rows, length) → (count, dimension), for the first `count` rows."""
        with torch.inference_mode():
            ids = torch.from_numpy(tokens).to(self.model.device)
            result: Embeddings = self.model({"input_ids": ids})["sentence_embedding"][:count].cpu().numpy()
        return result


def _parts(indices: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
