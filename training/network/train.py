"""Trains the network on weighted pairs of embedding and class."""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from torch import Tensor

from training.config import VAGUE_CODE, SearchConfig
from training.dataset.merge import Dataset
from training.dataset.variants import VariantDraw
from training.embedding.encoder import Embeddings
from training.errors import FailureCode, TrainingError
from training.network.distributed import Group
from training.network.head import Network, Sizes, choose_bfloat16, side_by_side
from training.network.loss import HierarchicalLoss
from training.network.whitening import InputMap
from training.progress import Phase, Progress
from training.threads import workers

ALONE: Final = Group()
# Far apart, so that the members' seeds differ from those of a configuration with the next seed.
_SEEDS_APART: Final = 1_000_003


@dataclass(frozen=True)
class Epoch:
    """The mean loss, and the share of pairs that were right by their weights, while an epoch was trained."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Trained:
    """Weights for embeddings of length 1, and the loss and accuracy of each epoch, with dropout.

    For an ensemble, losses and accuracies are the means over its networks.
    """

    sizes: Sizes
    weights: dict[str, Tensor]
    epochs: tuple[Epoch, ...]


@dataclass(frozen=True)
class Pairs:
    """The dataset on the device.

    table (texts and variants, dimension) holds the embeddings. A batch gathers its rows by index and maps
    them by inputs_of; draw decides which row stands for which pair. class_of and weight are (pairs,). The
    weights have mean 1, so that the learning rate has the same meaning whatever the weights of the sources.
    """

    table: Tensor
    inputs_of: InputMap
    draw: VariantDraw
    class_of: Tensor
    weight: Tensor

    @classmethod
    def of(cls, dataset: Dataset, embeddings: Embeddings, config: SearchConfig, device: torch.device) -> Self:
        weight = dataset.weight / dataset.weight.mean(dtype=np.float64)
        table = torch.from_numpy(embeddings)
        return cls(
            table.to(device),
            InputMap.of(table, config, device),
            VariantDraw(dataset.variants, dataset.text_of, len(dataset.texts), config.variant_share),
            torch.from_numpy(dataset.class_of).to(device),
            torch.from_numpy(weight.astype(np.float32)).to(device),
        )

    def __len__(self) -> int:
        return len(self.class_of)


def train_network(
    dataset: Dataset,
    embeddings: Embeddings,
    config: SearchConfig,
    device: str,
    progress: Progress,
    group: Group = ALONE,
) -> Trained:
    """Train `ensemble_size` networks and combine them into one.

    embeddings (texts and variants, dimension) belong to `dataset.embedded`. The same input on the same kind
    of machine gives the same bytes.
    """
    target = torch.device(device)
    sizes = Sizes(
        input_size=embeddings.shape[1],
        hidden_size=config.hidden_size // config.ensemble_size,
        output_size=len(dataset.classes),
        dropout_layer_1_percentage=config.model_dropout_layer_1_percentage,
        dropout_layer_2_percentage=config.model_dropout_layer_2_percentage,
    )
    pairs = Pairs.of(dataset, embeddings, config, target)
    loss_of = HierarchicalLoss(dataset.classes, config, target)
    networks = []
    for member in range(config.ensemble_size):
        seed = config.seed + member * _SEEDS_APART
        deterministic(seed)
        network = Network(sizes).to(target).train()
        # All processes start from the weights of the first, but each draws its own dropout.
        network.generator = torch.Generator(target).manual_seed(seed + group.rank)
        networks.append((network, seed))
    total = len(pairs) * config.max_epochs * config.ensemble_size
    with progress.phase("train", total) as phase, _workers(config, target, group) as executor:

        def work(network: Network, seed: int) -> list[Epoch]:
            return _train_one(network, pairs, loss_of, config, seed, phase, progress, group)

        running = [executor.submit(work, *one) for one in networks]
        epochs = tuple(_mean(of_all) for of_all in zip(*(one.result() for one in running), strict=True))
    members = [pairs.inputs_of.fold(network.weights()) for network, _ in networks]
    weights = side_by_side(members)
    if VAGUE_CODE in dataset.classes:
        weights["fc2.bias"][dataset.classes.index(VAGUE_CODE)] += config.vague_bias
    for name in ("fc2.weight", "fc2.bias"):
        weights[name] /= config.temperature
    weights = {name: value.to(getattr(torch, config.weights_precision)) for name, value in weights.items()}
    if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        raise TrainingError(
            FailureCode.DIVERGED, "the trained weights contain NaN or infinity. Lower learning_rate."
        )
    whole = Sizes(
        sizes.input_size,
        config.hidden_size,
        sizes.output_size,
        sizes.dropout_layer_1_percentage,
        sizes.dropout_layer_2_percentage,
    )
    return Trained(whole, weights, epochs)


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


def _train_one(
    network: Network,
    pairs: Pairs,
    loss_of: HierarchicalLoss,
    config: SearchConfig,
    seed: int,
    phase: Phase,
    progress: Progress,
    group: Group,
) -> list[Epoch]:
    parallel = group.parallel(network)
    steps = config.max_epochs * math.ceil(len(pairs) / config.model_batch_size)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, warm_up_then_cosine(steps, config.warm_up_share))
    device = pairs.table.device
    bfloat16 = choose_bfloat16(config.precision, str(device))
    order = torch.Generator().manual_seed(seed)
    epochs: list[Epoch] = []
    for epoch in range(1, config.max_epochs + 1):
        total_loss = torch.zeros((), dtype=torch.float64, device=device)
        correct = torch.zeros((), dtype=torch.float64, device=device)
        shuffled = torch.randperm(len(pairs), generator=order).to(device)
        row_of = pairs.draw(order).to(device)
        for whole in torch.split(shuffled, config.model_batch_size):
            batch = group.part_of(whole)
            classes, weight = pairs.class_of[batch], pairs.weight[batch]
            # One batch at a time, because a second table would not fit into memory for millions of texts.
            inputs = pairs.inputs_of(pairs.table[row_of[batch]])
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                logits = parallel(inputs)
            # Gradients are averaged over the processes, so the mean is multiplied by their number.
            loss = (loss_of(logits, classes) * weight).sum() * (group.size / len(whole))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total_loss += loss.detach() * (len(whole) / group.size)
            # Not argmax, which takes four times as long on a CPU and would be a tenth of the training.
            best = logits.detach().max(dim=1).indices
            correct += ((best == classes) * weight).sum()
            phase.advance(len(whole))
        last = Epoch(
            group.total(total_loss) / len(pairs),
            group.total(correct) / float(pairs.weight.sum(dtype=torch.float64)),
        )
        if not math.isfinite(last.loss):
            raise TrainingError(
                FailureCode.DIVERGED,
                f"the loss is {last.loss} in epoch {epoch}. Lower learning_rate ({config.learning_rate}) or "
                f"embedding_scale ({config.embedding_scale}).",
            )
        epochs.append(last)
        phase.advance(0, epoch=epoch, loss=last.loss, accuracy=last.accuracy)
        progress.say(
            f"epoch {epoch} of {config.max_epochs}: loss {last.loss:.4f}, accuracy {last.accuracy:.4f}"
        )
    return epochs


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


def warm_up_then_cosine(steps: int, warm_up_share: float) -> Callable[[int], float]:
    """The factor of the learning rate by step: a linear rise over a share of the steps, then a cosine."""
    warm_up = math.ceil(steps * warm_up_share)

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        through = (step - warm_up) / max(1, steps - warm_up)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, through)))

    return factor
