"""Trains the sentence-transformer itself on the weighted pairs of text and class.

Each class has a vector, and the embedding of a text learns to be closest to the vector of its class, by
cosine. These vectors are the head.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from training.checkpoints import NO_CHECKPOINTS, Checkpoints
from training.config import SearchConfig, TuningConfig
from training.dataset.merge import Dataset
from training.distributed import ALONE, Embeddings, Group
from training.embedding.transformer import Transformer
from training.network.head import choose_bfloat16
from training.network.loss import HierarchicalLoss
from training.network.standing import Epoch
from training.network.train import deterministic
from training.progress import Progress
from training.threads import one_thread, workers
from training.tuning.course import Course, Texts
from training.tuning.layers import freeze
from training.tuning.learner import PARTS, Learner

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class Tuned:
    """The transformer with its new weights, the head, and the loss and accuracy of each epoch.

    head (classes, dimension) gives the logits of embeddings of length 1. All weights are in float32.
    """

    model: "SentenceTransformer"
    head: Tensor
    epochs: tuple[Epoch, ...]


def tune(
    dataset: Dataset,
    transformer: Transformer,
    embeddings: Embeddings,
    config: SearchConfig,
    settings: TuningConfig,
    device: str,
    progress: Progress,
    group: Group = ALONE,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> Tuned:
    """Train the transformer, from its checkpoint if there is one.

    The same input on the same kind of machine gives the same bytes, also if it goes on from a checkpoint.
    embeddings (texts and variants, dimension) belong to `dataset.embedded`, and are those before the tuning.
    Under torchrun every process calls this function, and each of them has the result.
    """
    target = torch.device(device)
    deterministic(config.seed)
    model = load(transformer, device)
    freeze(model, settings)
    texts = _texts(dataset, model, config, settings, target)
    with (
        progress.phase("tune", len(texts) * settings.epochs) as phase,
        workers(min(PARTS, torch.get_num_threads()), threads=1) as executor,
    ):
        learner = Learner(
            model,
            nn.Parameter(_vectors(dataset, embeddings, config.seed).to(target)),
            HierarchicalLoss(dataset.classes, settings, target),
            settings,
            executor,
            group,
            bfloat16=choose_bfloat16(config.precision, device),
        )
        course = Course(learner, texts, config.seed, settings, group)
        learned_from = (dataset.sha256, transformer.sha256) if checkpoints.are_kept else ()
        epochs = course.run(checkpoints.part("tuning", *learned_from, group=group), phase, progress)
    return Tuned(model, learner.head(), epochs)


def load(transformer: Transformer, device: str) -> "SentenceTransformer":
    """The transformer in float32, without dropout, which would cost time and has not helped."""
    # Imported here, because it takes seconds and most runs do not tune.
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415
    from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

    disable_progress_bar()  # type: ignore[no-untyped-call]
    return SentenceTransformer(str(transformer.folder), device=device, local_files_only=True).float().eval()


def _vectors(dataset: Dataset, embeddings: Embeddings, seed: int) -> Tensor:
    """(classes, dimension), of length 1: the weighted means of the embeddings of each class's texts.

    A class all of whose texts belong to other classes, too, may have no pair. It begins at random.
    """
    shape = len(dataset.classes), embeddings.shape[1]
    found = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    sums = torch.zeros(shape, dtype=torch.float64)
    with one_thread():
        of_pairs = torch.from_numpy(embeddings[dataset.text_of] * dataset.weight[:, None])
        sums.index_add_(0, torch.from_numpy(dataset.class_of), of_pairs.double())
        found = torch.where(sums.abs().sum(dim=1, keepdim=True) > 0, sums, found)
        return nn.functional.normalize(found, dim=1).float()


def _texts(
    dataset: Dataset,
    model: "SentenceTransformer",
    config: SearchConfig,
    settings: TuningConfig,
    device: torch.device,
) -> Texts:
    longest = min(settings.longest_text, model.max_seq_length or settings.longest_text)
    encoded = model.tokenizer(
        dataset.embedded, truncation=True, max_length=longest, return_attention_mask=False
    )
    tokens = [np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"]]
    return Texts(
        tokens,
        torch.tensor([len(one) for one in tokens]),
        int(model.tokenizer.pad_token_id or 0),
        dataset.variant_draw(config.variant_share),
        torch.from_numpy(dataset.class_of),
        torch.from_numpy(dataset.relative_weight),
        device,
    )
