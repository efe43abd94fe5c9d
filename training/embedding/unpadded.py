"""sentence-transformers' model for batches without padding, here and in the processes of its pool.

Of a module of its own, for the pool's processes find the class by its name; importing it takes seconds.
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
    """Texts of one number of tokens → embeddings of length 1, float32 whatever multiplies."""

    _in_bfloat16 = False

    def multiply_in_bfloat16(self) -> None:
        """From now on. Weights are rounded once, not by autocast for each batch: the same bits, sooner."""
        self._in_bfloat16 = True
        for module in self.modules():
            if isinstance(module, torch.nn.Linear):
                module.to(torch.bfloat16)

    def tokenise(self, texts: Sequence[str]) -> list[npt.NDArray[np.int32]]:
        """The tokens of each text, cut at the model's longest."""
        encoded = self.tokenizer(
            list(texts), truncation=True, max_length=self.max_seq_length, return_attention_mask=False
        )
        return [np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"]]

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **options: Any
    ) -> dict[str, Tensor | Any]:
        """Raises ValueError for texts of several lengths: one would be padded, and round otherwise."""
        return {"input_ids": torch.from_numpy(np.stack(self.tokenise(inputs)).astype(np.int64))}

    def forward(self, input: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:  # noqa: A002
        """input_ids (rows, length) int64 → sentence_embedding (rows, dimension) float32."""
        ids = input["input_ids"]
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self._in_bfloat16):
            vectors = super().forward({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
            unit = torch.nn.functional.normalize(vectors["sentence_embedding"].float(), dim=1)
        return {"sentence_embedding": unit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickled: in a process of the pool, that is, before its first batch."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        # More of them would share a batch's arithmetic, and get into its last bit.
        torch.set_num_threads(1)
        # The lock of its bars would be one between processes, which those that the pool stops leave behind.
        tqdm.set_lock(threading.RLock())
        end_with_parent()
