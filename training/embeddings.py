"""Texts → unit-length embeddings.

An embedding depends on its text alone, to the last bit: texts are grouped by their number of tokens, so
that none is padded, and every group runs in batches of one shape, whatever else is in them. So a cache may
serve any part.
"""

import hashlib
import platform
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from training.progress import Phase, Progress
from training.transformer import Transformer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Embeddings = npt.NDArray[np.float32]

# A batch of longer texts has fewer of them: so many tokens fill a batch, about.
_TOKENS_OF_A_BATCH = 512
_TOKENISED_AT_ONCE = 8192
_BATCHES_AHEAD = 32


class Encoder:
    """A loaded sentence-transformer on one device."""

    def __init__(
        self, transformer: Transformer, device: str, batch_size: int, *, bfloat16: bool = False
    ) -> None:
        self.transformer = transformer
        self.device = torch.device(device)
        self._bfloat16 = bfloat16
        self._batch_size = batch_size

    @cached_property
    def model(self) -> "SentenceTransformer":
        # Imported here: it takes seconds, and a run whose embeddings are all cached needs none of it.
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415
        from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

        disable_progress_bar()  # type: ignore[no-untyped-call]
        folder = str(self.transformer.folder)
        return SentenceTransformer(folder, device=str(self.device), local_files_only=True).eval()

    @cached_property
    def fingerprint(self) -> str:
        """What an embedding depends on besides its text, to the last bit: transformer, libraries, machine."""
        kind = torch.backends.cpu.get_cpu_capability()
        if self.device.type == "cuda":
            kind = torch.cuda.get_device_name(self.device)
        versions = [f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "tokenizers")]
        parts = [self.transformer.sha256, *versions, platform.machine(), kind]
        parts += [str(self._batch_size), str(_TOKENS_OF_A_BATCH), str(self._bfloat16)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def dimension(self) -> int:
        return int(self.model.get_embedding_dimension() or 0)

    def encode(self, texts: Sequence[str], progress: Progress) -> Embeddings:
        """(len(texts), dimension) float32, each row of length 1."""
        out = np.empty((len(texts), self.dimension), dtype=np.float32)
        with progress.phase("embed", len(texts)) as phase, self._workers() as workers:
            waiting: deque[tuple[list[int], Future[Embeddings]]] = deque()
            for indices, tokens in self._batches(texts):
                waiting.append((indices, workers.submit(self._run, tokens, len(indices))))
                if len(waiting) > _BATCHES_AHEAD:
                    self._take(waiting.popleft(), out, phase)
            while waiting:
                self._take(waiting.popleft(), out, phase)
        return out

    @contextmanager
    def _workers(self) -> Iterator[ThreadPoolExecutor]:
        """On a CPU one thread a core, each with batches of its own, none sharing a batch's arithmetic.

        Threads that share it wait for each other at every layer: on a machine with one other busy process
        that is ten times slower. It also would let the number of cores into the last bit.
        """
        threads = torch.get_num_threads()
        count = threads if self.device.type == "cpu" else 1
        try:
            with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as workers:
                yield workers
        finally:
            torch.set_num_threads(threads)

    @staticmethod
    def _take(batch: tuple[list[int], Future[Embeddings]], out: Embeddings, phase: Phase) -> None:
        indices, vectors = batch
        out[indices] = vectors.result()
        phase.advance(len(indices))

    def encode_one(self, text: str) -> Embeddings:
        """(dimension,) float32: one text, at its own length."""
        (tokens,) = self._tokenise([text])
        one: Embeddings = self._run(tokens[None, :].astype(np.int64), 1)[0]
        return one

    def _batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], npt.NDArray[np.int64]]]:
        """Indices of texts of one length, and their tokens (rows, length); rows is a function of length."""
        by_length: dict[int, list[int]] = defaultdict(list)
        tokens: list[npt.NDArray[np.int32]] = []
        for start in range(0, len(texts), _TOKENISED_AT_ONCE):
            tokens += self._tokenise(texts[start : start + _TOKENISED_AT_ONCE])
        for index, ids in enumerate(tokens):
            by_length[len(ids)].append(index)
        # Long ones first: what does not fit into memory fails at once.
        for length in sorted(by_length, reverse=True):
            rows = max(1, min(self._batch_size, _TOKENS_OF_A_BATCH // length))
            group = by_length[length]
            for start in range(0, len(group), rows):
                indices = group[start : start + rows]
                filled = indices + [indices[-1]] * (rows - len(indices))
                yield indices, np.stack([tokens[index] for index in filled]).astype(np.int64)

    def _tokenise(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        tokenizer: Any = self.model.tokenizer
        encoded = tokenizer(
            list(texts), truncation=True, max_length=self.model.max_seq_length, return_attention_mask=False
        )
        return [np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"]]

    def _run(self, tokens: npt.NDArray[np.int64], count: int) -> Embeddings:
        """Tokens (rows, length) → (count, dimension), for the first `count` rows."""
        ids = torch.from_numpy(tokens).to(self.device)
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16)
        with torch.inference_mode(), autocast:
            features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            vectors = self.model(features)["sentence_embedding"][:count]
            unit = torch.nn.functional.normalize(vectors.float(), dim=1)
        result: Embeddings = unit.cpu().numpy()
        return result
