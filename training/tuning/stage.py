"""The stage of the pipeline that makes embeddings, with the original transformer or with a tuned one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from torch import Tensor

from training.checkpoints import Checkpoints
from training.config import SearchConfig, TuningConfig
from training.dataset.merge import Dataset
from training.distributed import Embeddings, Group
from training.embedding.cache import embed
from training.embedding.encoder import Encoder
from training.embedding.transformer import Transformer
from training.network.head import Head
from training.network.neighbours import Neighbours
from training.network.standing import Epoch
from training.network.train import WHOLE, Views
from training.progress import Progress
from training.tuning.package import keep
from training.tuning.tune import load, tune

# The folders of the transformers in model.zip.
BASE: Final = "transformer/base"
TUNED: Final = "transformer/tuned"


@dataclass(frozen=True)
class Embedded:
    """What the network is trained on.

    table (texts and variants, dimension) has the embeddings that networks take, of several transformers side
    by side. `views` say which columns each network takes. `transformers` are those that model.zip must carry,
    by their folders there, and `epochs` are those of the tuning.
    """

    table: Embeddings
    views: Views
    transformers: Mapping[str, Transformer] = field(default_factory=dict)
    epochs: tuple[Epoch, ...] = ()


@dataclass(frozen=True)
class Embedding:
    """The stage of the pipeline that turns the dataset into embeddings. The leader does what needs files."""

    dataset: Dataset
    transformer: Transformer
    encoder_of: Callable[[Transformer], Encoder]
    cache: str | None
    progress: Progress
    group: Group

    def with_original(self) -> Embedded:
        return Embedded(self._embed(self.transformer), WHOLE)

    def with_tuned(
        self,
        config: SearchConfig,
        settings: TuningConfig,
        device: str,
        folder: Path,
        checkpoints: Checkpoints,
    ) -> Embedded:
        """Tune the transformer first. The leader writes the transformers into `folder`."""
        base, transformers = self.transformer, {}
        if settings.takes_base and self.group.leads:
            # Its weights are rounded as well, so that model.zip can carry it and stays small.
            base = transformers[BASE] = keep(load(base, "cpu"), base, folder / BASE)
        of_base = self._embed(base)
        learned = tune(
            self.dataset,
            self.transformer,
            of_base,
            config,
            settings,
            device,
            self.progress,
            self.group,
            checkpoints,
        )
        tuned = self.transformer
        if self.group.leads:
            tuned = transformers[TUNED] = keep(learned.model, tuned, folder / TUNED)
        tables, neighbours = [of_base] if settings.takes_base else [], None
        if settings.takes_tuned:
            tables.append(self._embed(tuned))
        if settings.neighbour_share:
            # Only the texts are neighbours. Their variants come after them, and are not needed here.
            of_texts = tables[-1] if settings.takes_tuned else self._embed(tuned, self.dataset.texts)
            weight = settings.neighbour_share * settings.scale
            neighbours = Neighbours.of(self.dataset, of_texts, settings.most_neighbours, weight)
        views = _views(settings, of_base.shape[1], learned.head, neighbours)
        return Embedded(np.concatenate(tables, axis=1), views, transformers, learned.epochs)

    def _embed(self, by: Transformer, of: list[str] | None = None) -> Embeddings:
        texts = self.dataset.embedded if of is None else of
        return self.group.share_embeddings(
            embed(texts, self.encoder_of(by), self.cache, self.progress) if self.group.leads else None
        )


def _views(settings: TuningConfig, dimension: int, head: Tensor, neighbours: Neighbours | None) -> Views:
    """The embeddings of the original transformer come first, if any network takes them."""
    base = slice(0, dimension)
    tuned = slice(dimension, 2 * dimension) if settings.takes_base else base
    columns = {"base": base, "tuned": tuned, "both": slice(0, 2 * dimension)}
    turns = tuple(columns[taken] for taken in settings.networks)
    shares = Head(head, tuned, settings.head_share) if settings.head_share else None
    return Views(turns, tuned.stop, shares, neighbours, settings.neighbour_share)
