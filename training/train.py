"""Trains the network on weighted pairs of embedding and class."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from training.config import VAGUE_CODE, SearchConfig
from training.dataset import Dataset
from training.distributed import Group
from training.embeddings import Embeddings
from training.errors import FailureCode, TrainingError
from training.network import Network, Sizes, choose_bfloat16
from training.progress import Progress

ALONE: Final = Group()


@dataclass(frozen=True)
class Trained:
    """Weights that take embeddings of length 1; loss and accuracy of the last epoch, with dropout."""

    sizes: Sizes
    weights: dict[str, Tensor]
    loss: float
    accuracy: float


def train_network(
    dataset: Dataset,
    embeddings: Embeddings,
    config: SearchConfig,
    device: str,
    progress: Progress,
    group: Group = ALONE,
) -> Trained:
    """Embeddings (texts, dimension) are those of `dataset.texts`. Same input, same machine: same bytes."""
    deterministic(config.seed)
    target = torch.device(device)
    bfloat16 = choose_bfloat16(config.precision, device)
    sizes = Sizes(
        input_size=embeddings.shape[1],
        hidden_size=config.hidden_size,
        output_size=len(dataset.classes),
        dropout_layer_1_percentage=config.model_dropout_layer_1_percentage,
        dropout_layer_2_percentage=config.model_dropout_layer_2_percentage,
    )
    network = Network(sizes).to(target).train()
    if not group.leads:
        # The leader's weights hold for all, but rows on different processes drop different numbers out.
        torch.manual_seed(config.seed + group.rank)
    parallel = group.parallel(network)
    # Kept once for each text; a batch gathers its rows by index, on the device.
    table = torch.from_numpy(np.ascontiguousarray(embeddings)).to(target)
    text_of = torch.from_numpy(dataset.text_of).to(target)
    class_of = torch.from_numpy(dataset.class_of).to(target)
    # Of mean 1, so that the learning rate means the same whatever the sources weigh.
    weight = torch.from_numpy(dataset.weight / dataset.weight.mean(dtype=np.float64)).to(
        target, torch.float32
    )

    loss_of = HierarchicalLoss(dataset.classes, config, target)
    pairs = len(text_of)
    steps = config.max_epochs * math.ceil(pairs / config.model_batch_size)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, warm_up_then_cosine(steps, config.warm_up_share))
    order = torch.Generator().manual_seed(config.seed)
    loss = accuracy = math.nan
    with progress.phase("train", pairs * config.max_epochs) as phase:
        for epoch in range(1, config.max_epochs + 1):
            total_loss = torch.zeros((), dtype=torch.float64, device=target)
            correct = torch.zeros((), dtype=torch.float64, device=target)
            shuffled = torch.randperm(pairs, generator=order).to(target)
            for whole in torch.split(shuffled, config.model_batch_size):
                batch = group.part_of(whole)
                inputs = table[text_of[batch]] * config.embedding_scale
                with torch.autocast(target.type, torch.bfloat16, enabled=bfloat16):
                    logits = parallel(inputs)
                each = loss_of(logits.float(), class_of[batch])
                # Processes average their gradients: times their number, that is the whole mean.
                weighted = (each * weight[batch]).sum() * (group.size / len(whole))
                optimiser.zero_grad(set_to_none=True)
                weighted.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
                total_loss += weighted.detach() * (len(whole) / group.size)
                correct += ((logits.detach().argmax(1) == class_of[batch]) * weight[batch]).sum()
                phase.advance(len(whole))
            loss = group.total(total_loss) / pairs
            accuracy = group.total(correct) / float(weight.sum(dtype=torch.float64))
            if not math.isfinite(loss):
                raise TrainingError(
                    FailureCode.DIVERGED,
                    f"the loss is {loss} in epoch {epoch}: lower learning_rate ({config.learning_rate}) or "
                    f"embedding_scale ({config.embedding_scale})",
                )
            phase.advance(0, epoch=epoch, loss=loss, accuracy=accuracy)
            progress.say(f"epoch {epoch} of {config.max_epochs}: loss {loss:.4f}, accuracy {accuracy:.4f}")
    weights = network.folded(config.embedding_scale)
    if VAGUE_CODE in dataset.classes:
        weights["fc2.bias"][dataset.classes.index(VAGUE_CODE)] += config.vague_bias
    if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        raise TrainingError(FailureCode.DIVERGED, "the weights hold NaN or infinity: lower learning_rate")
    return Trained(sizes, weights, loss, accuracy)


class HierarchicalLoss:
    """Cross-entropy of the codes and, by `hierarchy_weight`, of their chapters and headings.

    A chapter's probability is the sum of its codes': a wrong code of the right heading costs less than one of
    another chapter. The vague class is a chapter and a heading of its own.
    """

    def __init__(self, classes: Sequence[str], config: SearchConfig, device: torch.device) -> None:
        self._label_smoothing = config.label_smoothing
        self._weight = config.hierarchy_weight
        self._levels: list[tuple[Tensor, int]] = []
        for digits in (2, 4) if self._weight else ():
            above = sorted({code[:digits] for code in classes})
            index = {code: position for position, code in enumerate(above)}
            group_of = torch.tensor([index[code[:digits]] for code in classes], device=device)
            self._levels.append((group_of, len(above)))

    def __call__(self, logits: Tensor, class_of: Tensor) -> Tensor:
        """Logits (batch, classes) float32 and class_of (batch,) → the loss of each row (batch,)."""
        loss = nn.functional.cross_entropy(
            logits, class_of, reduction="none", label_smoothing=self._label_smoothing
        )
        if not self._levels:
            return loss
        chances = torch.softmax(logits, dim=1)
        for group_of, groups in self._levels:
            sums = chances.new_zeros(len(chances), groups).index_add(1, group_of, chances)
            right = sums.gather(1, group_of[class_of].unsqueeze(1)).squeeze(1)
            # A sum that underflowed to 0 has no logarithm: a chance of 1e-8 is as wrong.
            loss = loss - self._weight * torch.log(right.clamp_min(1e-8))
        return loss


def deterministic(seed: int) -> None:
    """One seed for all of torch, and algorithms that repeat themselves, on GPUs too."""
    # cuBLAS repeats itself with a workspace of a fixed size alone; read when the first GPU operation runs.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(mode=True)


def warm_up_then_cosine(steps: int, warm_up_share: float) -> Callable[[int], float]:
    """The learning rate's factor by step: up over a share of the steps, then down to 0 as a cosine."""
    warm_up = math.ceil(steps * warm_up_share)

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        through = (step - warm_up) / max(1, steps - warm_up)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, through)))

    return factor
