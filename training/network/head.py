"""The network: two linear layers on an embedding, in the format that existing inference code loads."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """The content of `target/model.toml`: what is needed to build the network for the weights."""

    input_size: int
    hidden_size: int
    output_size: int
    dropout_layer_1_percentage: float
    dropout_layer_2_percentage: float

    def to_toml(self) -> str:
        return "".join(f"{key} = {value}\n" for key, value in asdict(self).items())


class Network(nn.Module):
    """dropout → fc1 → LeakyReLU → dropout → fc2."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        # Networks that are trained at the same time draw their dropout from separate generators.
        self.generator: torch.Generator | None = None
        self.fc1 = nn.Linear(sizes.input_size, sizes.hidden_size)
        self.activation = nn.LeakyReLU()
        self.fc2 = nn.Linear(sizes.hidden_size, sizes.output_size)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(batch, input_size) → logits (batch, output_size)."""
        kept = self._drop_out(embeddings, self.sizes.dropout_layer_1_percentage)
        hidden = self._drop_out(self.activation(self.fc1(kept)), self.sizes.dropout_layer_2_percentage)
        logits: Tensor = self.fc2(hidden)
        return logits

    def _drop_out(self, values: Tensor, share: float) -> Tensor:
        """Like nn.Dropout: in training, zero a share of the values and scale up the others."""
        if not self.training or share == 0:
            return values
        mask = torch.empty_like(values).bernoulli_(1 - share, generator=self.generator)
        return values * mask / (1 - share)

    def weights(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.state_dict().items()}


@dataclass(frozen=True)
class Head:
    """A linear classifier whose logits have a share in those of the model; the networks have the rest.

    weights (classes, number of columns) take those columns of the embeddings.
    """

    weights: Tensor
    columns: slice
    share: float

    def as_network(self) -> dict[str, Tensor]:
        """The same classifier as a network with a hidden layer.

        The hidden layer has x and −x, and LeakyReLU(x) − LeakyReLU(−x) = (1 + slope) x.
        """
        unit = torch.eye(self.weights.shape[1])
        scaled = self.weights / (1 + nn.LeakyReLU().negative_slope)
        return {
            "fc1.weight": torch.cat([unit, -unit]),
            "fc1.bias": torch.zeros(2 * len(unit)),
            "fc2.weight": torch.cat([scaled, -scaled], dim=1),
            "fc2.bias": torch.zeros(len(scaled)),
        }


def widened(weights: dict[str, Tensor], columns: slice, width: int) -> dict[str, Tensor]:
    """The same network for inputs of `width` numbers, of which it takes only those in `columns`."""
    first = weights["fc1.weight"].new_zeros(len(weights["fc1.weight"]), width)
    first[:, columns] = weights["fc1.weight"]
    return weights | {"fc1.weight": first}


def side_by_side(
    members: Sequence[dict[str, Tensor]], shares: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """Combine networks into one whose logits are the mean of theirs, or the sum of their `shares`.

    Its hidden layer is the concatenation of their hidden layers. This is exact, because nothing mixes the
    hidden layers before the last layer.
    """
    if shares is not None:
        members = [
            member | {name: member[name] * share * len(members) for name in ("fc2.weight", "fc2.bias")}
            for member, share in zip(members, shares, strict=True)
        ]
    count = len(members)
    return {
        "fc1.weight": torch.cat([member["fc1.weight"] for member in members]),
        "fc1.bias": torch.cat([member["fc1.bias"] for member in members]),
        "fc2.weight": torch.cat([member["fc2.weight"] for member in members], dim=1) / count,
        "fc2.bias": torch.stack([member["fc2.bias"] for member in members]).mean(dim=0),
    }


def choose_device(wanted: str) -> str:
    """`auto` means the first GPU, if there is one. Raises ValueError for a GPU that does not exist."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    missing_gpu = wanted.startswith("cuda") and not torch.cuda.is_available()
    missing_mps = wanted == "mps" and not torch.backends.mps.is_available()
    if missing_gpu or missing_mps:
        raise ValueError(
            f'device is "{wanted}", but this machine has no such GPU. Set it to "auto" or "cpu".'
        )
    return wanted


def choose_bfloat16(wanted: str, device: str) -> bool:
    """Whether matrices are multiplied in bfloat16. `auto` means yes if the hardware has units for it.

    GPUs, AMX and AVX-512's BF16 are such units. They were measured to be 3 times as fast as float32.
    """
    if wanted != "auto":
        return wanted == "bfloat16"
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = torch.cpu.get_capabilities() if kind == "cpu" else {}
    return bool(has.get("amx_bf16") or has.get("avx512_bf16"))


def load_network(sizes: Sizes, weights: dict[str, Any]) -> Network:
    network = Network(sizes)
    network.load_state_dict(weights)
    return network.eval()
