"""The table `[tuning]`: how the transformer itself is trained, and how its embeddings are used."""

from typing import Annotated, Literal

from pydantic import Field

from training.config_parts.section import Section
from training.config_parts.values import at_most

Taken = Literal["base", "tuned", "both"]
"""The embeddings that a network takes: of the original transformer, of the tuned one, or of both."""


class TuningConfig(Section):
    """With this table in a configuration, the transformer learns from the pairs, too."""

    epochs: Annotated[int, Field(ge=1, le=1000)] = 2
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 128
    # What keeps its weights: the embeddings of tokens, and so many of the lowest layers.
    frozen_embeddings: bool = False
    frozen_layers: Annotated[int, Field(ge=0, le=1000)] = 0
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.0002
    # Each layer of the transformer learns at the rate of the layer above it times this.
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    # Of the head, which has a vector for each class.
    head_learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.001
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    warm_up_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    # The cosine of an embedding and the vector of a class, times this, is the logit of the class.
    scale: Annotated[float, Field(gt=0, le=1000)] = 20.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # The weight in the loss of the probabilities of the chapter and the heading, beside that of the code.
    hierarchy_weight: Annotated[float, Field(ge=0, le=10)] = 0.3
    # Longer texts are cut to so many tokens while the transformer is tuned.
    longest_text: Annotated[int, Field(ge=4, le=8192)] = 48
    # Which embeddings the networks of the ensemble take, in turn.
    networks: Annotated[tuple[Taken, ...], Field(strict=False, min_length=1), at_most(64)] = ("base",)
    # The share of the head's logits in those of the networks and the head.
    head_share: Annotated[float, Field(ge=0, lt=1)] = 0.5
    # The share of the neighbours' logits in those of the model. The networks and the head have the rest.
    neighbour_share: Annotated[float, Field(ge=0, lt=1)] = 0.4
    # A model keeps at most so many pairs of training text and class as neighbours.
    most_neighbours: Annotated[int, Field(ge=1, le=10_000_000)] = 50_000
    # A text is also refused if no code is likely. This times −log of the probability of its best code is
    # added to the logit of the vague class. With 0, texts are refused as by a model without tuning.
    doubt_weight: Annotated[float, Field(ge=0, le=100)] = 1.0

    @property
    def takes_base(self) -> bool:
        return bool({"base", "both"} & set(self.networks))

    @property
    def takes_tuned(self) -> bool:
        return bool({"tuned", "both"} & set(self.networks))

    @property
    def uses_tuned(self) -> bool:
        """Whether the tuned transformer has any influence on the answers."""
        return self.takes_tuned or self.head_share > 0 or self.neighbour_share > 0
