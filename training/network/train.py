"""Trains the network on weighted pairs of embedding and class."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Final

import numpy as np
import torch
from torch import Tensor

from training.checkpoints import NO_CHECKPOINTS, Checkpoints
from training.config import VAGUE_CODE, SearchConfig
from training.dataset.merge import Dataset
from training.distributed import ALONE, Embeddings, Group
from training.errors import FailureCode, TrainingError
from training.network.head import Head, Network, Sizes, side_by_side, widened
from training.network.loss import HierarchicalLoss
from training.network.member import Member, Pairs
from training.network.neighbours import Neighbours
from training.network.standing import Epoch
from training.progress import Progress
from training.threads import workers

# Far apart, so that the members' seeds differ from those of a configuration with the next seed.
_SEEDS_APART: Final = 1_000_003


@dataclass(frozen=True)
class Views:
    """Which columns of the embeddings the networks take, in turn, and what else shares in the answer.

    The model takes `width` columns, if those are more than the networks take. Of its logits, neighbours have
    their share first, and the head has its share of the rest.
    """

    turns: tuple[slice, ...] = (slice(None),)
    width: int = 0
    head: Head | None = None
    neighbours: Neighbours | None = None
    neighbour_share: float = 0.0


WHOLE: Final = Views()


@dataclass(frozen=True)
class Trained:
    """Weights for embeddings of length 1, and the loss and accuracy of each epoch, with dropout.

    For an ensemble, losses and accuracies are the means over its networks. The logits of `neighbours`, if
    there are any, are added to those of the network. For `doubt_weight`, see training/network/refusal.py.
    """

    sizes: Sizes
    weights: dict[str, Tensor]
    epochs: tuple[Epoch, ...]
    neighbours: Neighbours | None = None
    doubt_weight: float = 0.0


def train_network(
    dataset: Dataset,
    embeddings: Embeddings,
    config: SearchConfig,
    device: str,
    progress: Progress,
    group: Group = ALONE,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    views: Views = WHOLE,
) -> Trained:
    """Train `ensemble_size` networks and combine them into one.

    embeddings (texts and variants, dimension) belong to `dataset.embedded`. Each network takes the
    columns that `views` tell. The same input on the same kind of machine gives the same bytes, also if the
    training goes on from checkpoints.
    """
    target = torch.device(device)
    seen = [Pairs.of(dataset, embeddings[:, columns], config, target) for columns in views.turns]
    members = _members(dataset, seen, config, target, group)
    learned_from = _digests(dataset, embeddings) if checkpoints.are_kept else ()
    total = len(dataset.class_of) * config.max_epochs * config.ensemble_size
    with progress.phase("train", total) as phase, _workers(config, target, group) as executor:
        running = [
            executor.submit(
                member.train,
                checkpoints.part(f"network-{number}", *learned_from, group=group),
                phase,
                progress,
            )
            for number, member in enumerate(members, 1)
        ]
        epochs = tuple(_mean(of_all) for of_all in zip(*(one.result() for one in running), strict=True))
    width = max(embeddings.shape[1], views.width)
    folded = [
        widened(pairs.inputs_of.fold(one.network.weights()), columns, width)
        # The list of members ends first.
        for one, pairs, columns in zip(members, cycle(seen), cycle(views.turns), strict=False)
    ]
    weights = _stored(_shared(side_by_side(folded), views, width), dataset, config)
    sizes = replace(members[0].network.sizes, input_size=width, hidden_size=len(weights["fc1.bias"]))
    neighbours = views.neighbours and views.neighbours.at_temperature(config.temperature)
    doubt_weight = config.tuning.doubt_weight if config.tuning else 0.0
    return Trained(sizes, weights, epochs, neighbours, doubt_weight)


def _shared(networks: dict[str, Tensor], views: Views, width: int) -> dict[str, Tensor]:
    """The networks and the head as one network, whose logits have the share that neighbours leave."""
    rest = 1 - views.neighbour_share
    if views.head is not None:
        head = widened(views.head.as_network(), views.head.columns, width)
        shares = [rest * (1 - views.head.share), rest * views.head.share]
        return side_by_side([networks, head], shares)
    return networks if rest == 1 else side_by_side([networks], [rest])


def _digests(dataset: Dataset, embeddings: Embeddings) -> tuple[str, str]:
    return dataset.sha256, hashlib.sha256(np.ascontiguousarray(embeddings).data).hexdigest()


def _members(
    dataset: Dataset, seen: Sequence[Pairs], config: SearchConfig, device: torch.device, group: Group
) -> list[Member]:
    """The networks before their training, each with what it sees and a share of the hidden size."""
    loss_of = HierarchicalLoss(dataset.classes, config, device)
    members = []
    # The range ends first.
    for index, pairs in zip(range(config.ensemble_size), cycle(seen), strict=False):
        seed = config.seed + index * _SEEDS_APART
        deterministic(seed)
        sizes = Sizes(
            input_size=pairs.table.shape[1],
            hidden_size=config.hidden_size // config.ensemble_size,
            output_size=len(dataset.classes),
            dropout_layer_1_percentage=config.model_dropout_layer_1_percentage,
            dropout_layer_2_percentage=config.model_dropout_layer_2_percentage,
        )
        network = Network(sizes).to(device).train()
        # All processes start from the weights of the first, but each draws its own dropout.
        network.generator = torch.Generator(device).manual_seed(seed + group.rank)
        name = f"network {index + 1} of {config.ensemble_size}"
        members.append(Member(name, network, pairs, loss_of, config, seed, group))
    return members


def _stored(weights: dict[str, Tensor], dataset: Dataset, config: SearchConfig) -> dict[str, Tensor]:
    """The weights as they are stored, with the bias of the vague class and the temperature."""
    if VAGUE_CODE in dataset.classes:
        weights["fc2.bias"][dataset.classes.index(VAGUE_CODE)] += config.vague_bias
    for name in ("fc2.weight", "fc2.bias"):
        weights[name] /= config.temperature
    weights = {name: value.to(getattr(torch, config.weights_precision)) for name, value in weights.items()}
    if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        raise TrainingError(
            FailureCode.DIVERGED, "the trained weights contain NaN or infinity. Lower learning_rate."
        )
    return weights


def _mean(epochs: Sequence[Epoch]) -> Epoch:
    count = len(epochs)
    return Epoch(sum(one.loss for one in epochs) / count, sum(one.accuracy for one in epochs) / count)


def _workers(
    config: SearchConfig, device: torch.device, group: Group
) -> AbstractContextManager[ThreadPoolExecutor]:
    """The executor for the networks. On a CPU several are trained at a time, each on one thread.

    Threads that share the arithmetic of one network wait for each other, most of all on a busy machine.
    Processes that share the networks must all train the same network at the same time.
    """
    threads = torch.get_num_threads()
    at_a_time = min(threads, config.ensemble_size) if device.type == "cpu" and group.size == 1 else 1
    each = 1 if device.type == "cpu" and config.ensemble_size > 1 else threads
    return workers(at_a_time, each)


def fix_cublas_workspace() -> None:
    """Give cuBLAS a workspace of a fixed size, without which its results can differ between runs.

    cuBLAS reads the setting when a process first uses it. Child processes inherit the setting.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def deterministic(seed: int) -> None:
    """Set one seed for all of torch, and use algorithms that give the same results each time, on GPUs too."""
    fix_cublas_workspace()
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(mode=True)
