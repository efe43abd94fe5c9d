"""Several processes on one machine, one for each GPU, as torchrun starts them.

All processes run the same pipeline. The leader reads and cleans the data, embeds it with a process pool on
all devices, and writes the files. When the network is trained, each batch is split between all processes. If
there is only one process, these functions do nothing.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Embeddings = npt.NDArray[np.float32]
Shared = TypeVar("Shared")

# The others wait for long while the leader reads, cleans and embeds. If one dies, torchrun ends the rest.
TIMEOUT: Final = timedelta(days=1)


@dataclass(frozen=True)
class Group:
    """The rank of this process among `size` processes."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def devices(self, chosen: str) -> list[str]:
        """The device of each process: a GPU of its own if there are several."""
        if chosen == "cuda" and self.size > 1:
            return [f"cuda:{rank}" for rank in range(self.size)]
        return [chosen] * self.size

    def share(self, value: Shared | None) -> Shared:
        """Give the leader's value to all processes. The other processes pass None."""
        if self.size > 1:
            box = [value]
            dist.broadcast_object_list(box, src=0)
            (value,) = box
        if value is None:
            raise AssertionError("the leader had nothing to share")
        return value

    def share_embeddings(self, embeddings: Embeddings | None) -> Embeddings:
        """Like `share`, but without pickling, which would need gigabytes more for a million embeddings."""
        if self.size == 1:
            return self.share(embeddings)
        shape = self.share(None if embeddings is None else embeddings.shape)
        table = torch.empty(shape) if embeddings is None else torch.from_numpy(embeddings)
        dist.broadcast(table, src=0)
        shared: Embeddings = table.numpy()
        return shared

    def parallel(self, network: nn.Module) -> nn.Module:
        """The network, with its gradients averaged over the processes."""
        return DistributedDataParallel(network) if self.size > 1 else network

    def part_of(self, batch: Tensor) -> Tensor:
        """This process's rows of a batch."""
        return batch[self.rank :: self.size]

    def add_up(self, values: Tensor) -> Tensor:
        """The sums of the values of all processes, in the tensor that was passed."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def total(self, value: Tensor) -> float:
        """The sum of the values of all processes."""
        return float(self.add_up(value))

    def highest(self, value: int) -> int:
        """The highest of the values of all processes."""
        if self.size > 1:
            box = torch.tensor(value)
            dist.all_reduce(box, dist.ReduceOp.MAX)
            return int(box)
        return value

    def gather(self, value: Shared) -> list[Shared]:
        """The values of all processes, by their ranks."""
        if self.size > 1:
            found: list[Any] = [None] * self.size
            dist.all_gather_object(found, value)
            return found
        return [value]


ALONE: Final = Group()


def join(device: str) -> Group:
    """Join the processes that torchrun started, if any. They form a group until they `leave`."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Group()
    rank = int(os.environ["RANK"])
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(rank)
    # Only once, because a second time processes would find each other's old addresses in the same store.
    if not dist.is_initialized():
        # gloo transfers objects and CPU tensors, nccl transfers tensors on GPUs.
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=TIMEOUT)
    return Group(rank, size)


def leave() -> None:
    """Leave the group at the end of the work, as nccl requires."""
    if dist.is_initialized():
        dist.destroy_process_group()


def is_leader() -> bool:
    return os.environ.get("RANK", "0") == "0"
