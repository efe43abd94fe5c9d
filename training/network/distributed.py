"""Several processes on one machine, one a GPU, as torchrun starts them; alone, every call is a no-op.

All of them run the same pipeline. The leader reads and cleans the data, has it embedded by a process pool on
everyone's devices, and writes the files; each batch of the head's training is split between all.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.embedding.encoder import Embeddings

Shared = TypeVar("Shared")

# The leader may read, clean and embed for long while the others wait. When one dies, torchrun ends the rest.
TIMEOUT: Final = timedelta(days=1)


@dataclass(frozen=True)
class Group:
    """This process among `size` of them."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def devices(self, chosen: str) -> list[str]:
        """Each process's own GPU, where there are several."""
        if chosen == "cuda" and self.size > 1:
            return [f"cuda:{rank}" for rank in range(self.size)]
        return [chosen] * self.size

    def share(self, value: Shared | None) -> Shared:
        """What the leader has, for all; the others give None."""
        if self.size > 1:
            box = [value]
            dist.broadcast_object_list(box, src=0)
            (value,) = box
        if value is None:
            raise AssertionError("the leader had nothing to share")
        return value

    def share_embeddings(self, embeddings: Embeddings | None) -> Embeddings:
        """As `share`, but straight from memory to memory: pickled, a million take some gigabytes more."""
        if self.size == 1:
            return self.share(embeddings)
        shape = self.share(None if embeddings is None else embeddings.shape)
        table = torch.empty(shape) if embeddings is None else torch.from_numpy(embeddings)
        dist.broadcast(table, src=0)
        shared: Embeddings = table.numpy()
        return shared

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


def join(device: str) -> Group:
    """The processes that torchrun started this one with, or this one alone: a group until they `leave`."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Group()
    rank = int(os.environ["RANK"])
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(rank)
    # Not a second time: processes that meet again by the same store find each other's old addresses in it.
    if not dist.is_initialized():
        # gloo carries objects and CPU tensors, nccl what lies on GPUs.
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=TIMEOUT)
    return Group(rank, size)


def leave() -> None:
    """At the end of the work, as nccl wants it."""
    if dist.is_initialized():
        dist.destroy_process_group()


def is_leader() -> bool:
    return os.environ.get("RANK", "0") == "0"
