"""The sentence-transformers model for batches without padding, in this process and in those of its pool.

It has a module of its own, because the processes of the pool import the class by name, which takes seconds.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from training.processes import end_with_parent


class Unpadded(SentenceTransformer):
    """Embeds texts with equal numbers of tokens. The results have length 1, and are always float32."""

    _in_bfloat16 = False

    def multiply_in_bfloat16(self) -> None:
        """Use bfloat16 from now on. Rounding weights once gives the same bits as autocast, and is faster."""
        self._in_bfloat16 = True
        for module in self.modules():
            if isinstance(module, torch.nn.Linear):
                module.to(torch.bfloat16)

    def tokenise(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        """The tokens of each text, truncated at the maximum length of the model."""
        encoded = self.tokenizer(
            list(texts), truncation=True, max_length=self.max_seq_length, return_attention_mask=False
        )
        return [np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"]]

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **options: Any
    ) -> dict[str, Tensor | Any]:
        """Raises ValueError if the texts differ in length, because padding would change the rounding."""
        return {"input_ids": torch.from_numpy(np.stack(self.tokenise(inputs)).astype(np.int64))}

    def forward(self, input: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:  # noqa: A002
        """input_ids (rows, length) int64 → sentence_embedding (rows, dimension) float32."""
        ids = input["input_ids"]
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self._in_bfloat16):
            vectors = super().forward({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
            unit = torch.nn.functional.normalize(vectors["sentence_embedding"].float(), dim=1)
        return {"sentence_embedding": unit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Called in each process of the pool when it receives the model, before its first batch."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        # More threads would share the arithmetic of a batch, which would change the last bit.
        torch.set_num_threads(1)
        # By default tqdm's lock is shared between processes, and leaks when the pool stops them.
        tqdm.set_lock(threading.RLock())
        end_with_parent()
