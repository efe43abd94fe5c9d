"""The layers of a transformer: which of them keep their weights, and how fast the others learn."""

import re
from collections.abc import Mapping
from typing import Final

from torch import nn

from training.config import TuningConfig
from training.errors import FailureCode, TrainingError

_LAYER: Final = re.compile(r"\.layers?\.(\d+)\.")


def freeze(model: nn.Module, settings: TuningConfig) -> None:
    """Freeze what shall keep its weights. Raises `invalid_config` if no layer is left."""
    layers, known = settings.frozen_layers, _count(model)
    if layers >= max(known, 1):
        raise TrainingError(
            FailureCode.INVALID_CONFIG,
            f"tuning.frozen_layers is {layers}, but the transformer has {known} layers that can be told "
            "apart, and at least one must learn. Lower it, or remove [tuning].",
        )
    for name, parameter in model.named_parameters():
        layer = _layer_of(name)
        is_frozen = settings.frozen_embeddings and _is_below(name) if layer is None else layer < layers
        parameter.requires_grad_(not is_frozen)


def rates_of(model: nn.Module, settings: TuningConfig) -> Mapping[nn.Parameter, float]:
    """The learning rate of each parameter. The last layer, and what follows the layers, learns fastest."""
    last = _count(model) - 1
    rates = {}
    for name, parameter in model.named_parameters():
        layer = -1 if _is_below(name) else _layer_of(name)
        depth = 0 if layer is None else last - layer
        rates[parameter] = settings.learning_rate * settings.layer_decay**depth
    return rates


def _count(model: nn.Module) -> int:
    found = (_layer_of(name) for name, _ in model.named_parameters())
    return 1 + max((layer for layer in found if layer is not None), default=-1)


def _layer_of(name: str) -> int | None:
    found = _LAYER.search(name)
    return None if found is None else int(found[1])


def _is_below(name: str) -> bool:
    """Whether the parameter comes before the layers: the embeddings of tokens, and biases of positions."""
    return "embeddings." in name or "relative_attention_bias" in name
