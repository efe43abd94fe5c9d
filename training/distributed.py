"""Several processes on one machine, one a GPU, as torchrun starts them; alone, every call is a no-op.

All of them run the same pipeline. The leader reads and cleans the data and writes the files; texts to embed
are split between all, and so is each batch of the head's training.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.embeddings import Embeddings, Encoder
from training.progress import Progress

Shared = TypeVar("Shared")

# The leader may clean and read for long while the others wait.
TIMEOUT: Final = timedelta(hours=2)


@dataclass(frozen=True)
class Group:
    """This process among `size` of them."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def device(self, chosen: str) -> str:
        """This process's own GPU, where there are several."""
        return f"cuda:{self.rank}" if chosen == "cuda" and self.size > 1 else chosen

    def share(self, value: Shared | None) -> Shared:
        """What the leader has, for all; the others give None."""
        if self.size > 1:
            box = [value]
            dist.broadcast_object_list(box, src=0)
            (value,) = box
        if value is None:
            raise AssertionError("the leader had nothing to share")
        return value

    def encode(self, texts: Sequence[str], encoder: Encoder, progress: Progress) -> Embeddings:
        """(len(texts), dimension): each process embeds its part. All must ask for the same texts."""
        if self.size == 1:
            return encoder.encode(texts, progress)
        # By length and dealt out in turn, so that all are busy for as long.
        dealt = sorted(range(len(texts)), key=lambda index: (len(texts[index]), index))
        own = encoder.encode([texts[index] for index in dealt[self.rank :: self.size]], progress)
        parts: list[Embeddings | None] = [None] * self.size
        dist.all_gather_object(parts, own)
        out = np.empty((len(texts), own.shape[1]), dtype=np.float32)
        for rank, part in enumerate(parts):
            out[dealt[rank :: self.size]] = part
        return out

    def parallel(self, network: nn.Module) -> nn.Module:
        """The network, with gradients averaged over the processes."""
        return DistributedDataParallel(network) if self.size > 1 else network

    def part_of(self, batch: Tensor) -> Tensor:
        """This process's rows of a batch."""
        return batch[self.rank :: self.size]

    def total(self, value: Tensor) -> float:
        """The sum over the processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return float(value)

    def leave(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()


def join(device: str) -> Group:
    """The processes that torchrun started this one with, or this one alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Group()
    rank = int(os.environ["RANK"])
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(rank)
    # gloo carries objects and CPU tensors, nccl what lies on GPUs.
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=TIMEOUT)
    return Group(rank, size)


def is_leader() -> bool:
    return os.environ.get("RANK", "0") == "0"
