import numpy as np
import pytest
import torch

from training.config import SearchConfig, parse_config
from training.network.head import Network, Sizes, load_network
from training.network.whitening import InputMap

CPU = torch.device("cpu")


def config(whitening: float, scale: float = 5.0) -> SearchConfig:
    base = parse_config('name = "m"\nversion = "0.1.0"\n')
    return base.model_copy(update={"embedding_whitening": whitening, "embedding_scale": scale})


def embeddings(count: int = 400, dimension: int = 6) -> torch.Tensor:
    """Unit vectors around one direction. Their variance differs greatly between dimensions."""
    rng = np.random.default_rng(0)
    points = rng.normal(0.3, np.geomspace(0.01, 1, dimension), (count, dimension))
    return torch.from_numpy((points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32))


def test_without_whitening_embeddings_are_only_scaled() -> None:
    table = embeddings()
    assert torch.allclose(InputMap.of(table, config(0.0), CPU)(table), table * 5, atol=1e-6)


@pytest.mark.parametrize("whitening", [0.25, 0.5, 1.0])
def test_inputs_have_mean_0_and_the_configured_length(whitening: float) -> None:
    table = embeddings()
    inputs = InputMap.of(table, config(whitening), CPU)(table)
    assert torch.allclose(inputs.mean(dim=0), torch.zeros(6), atol=1e-4)
    assert inputs.square().sum(dim=1).mean().sqrt().item() == pytest.approx(5, rel=1e-4)


def test_whitening_evens_out_the_variances() -> None:
    table = embeddings()

    def spread(inputs: torch.Tensor) -> float:
        variances = torch.linalg.eigvalsh(torch.cov(inputs.T))
        return float(variances.max() / variances.min())

    none, half, whole = (spread(InputMap.of(table, config(p), CPU)(table)) for p in (0.0, 0.5, 1.0))
    assert none > half > whole
    # The spread is not 1, because directions with hardly any variance stay small.
    assert whole < none / 10


@pytest.mark.parametrize("count", [1, 3])
def test_too_few_embeddings_for_whitening_still_give_finite_inputs(count: int) -> None:
    table = embeddings(count)
    inputs = InputMap.of(table, config(1.0), CPU)(embeddings())
    assert inputs.isfinite().all()


def test_folded_weights_take_embeddings_and_give_the_same_logits() -> None:
    torch.manual_seed(0)
    table, sizes = embeddings(), Sizes(6, 4, 3, 0.0, 0.0)
    network = Network(sizes).eval()
    inputs_of = InputMap.of(table, config(0.7), CPU)
    folded = load_network(sizes, inputs_of.fold(network.weights()))
    with torch.inference_mode():
        assert torch.allclose(folded(table), network(inputs_of(table)), atol=1e-5)
