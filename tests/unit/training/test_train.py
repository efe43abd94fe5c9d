import io
import json
import math
import zipfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from training.cleaning.language import LanguageRules
from training.config import VAGUE_CODE, SearchConfig, parse_config
from training.dataset.merge import Dataset
from training.dataset.variants import make_variants
from training.errors import FailureCode, TrainingError
from training.network.head import Network, Sizes, choose_device, load_network, side_by_side
from training.network.loss import HierarchicalLoss
from training.network.member import warm_up_then_cosine
from training.network.neighbours import Neighbours
from training.network.package import Answers, read_model, write_model
from training.network.refusal import decide
from training.network.standing import Epoch
from training.network.train import Trained, train_network
from training.progress import Progress

QUIET = Progress(log=io.StringIO())


def config(**changes: object) -> SearchConfig:
    base = parse_config(
        'name = "m"\nversion = "0.1.0"\nhidden_size = 16\nmodel_batch_size = 8\nmax_epochs = 30\n'
    )
    return base.model_copy(update={"learning_rate": 0.01, **changes})


def dataset(class_of: list[int], classes: int, weight: float = 1) -> Dataset:
    count = len(class_of)
    return Dataset(
        texts=[str(index) for index in range(count)],
        classes=[f"{code:06}" for code in range(classes)],
        text_of=np.arange(count, dtype=np.int64),
        class_of=np.array(class_of, dtype=np.int64),
        weight=np.full(count, weight, dtype=np.float32),
        variants=make_variants([""] * count, [0] * count, 0),
        conflicts=pl.DataFrame(),
        unknown=pl.DataFrame(),
        counts={},
        rows_by_source={},
    )


def clusters(count: int = 48, classes: int = 3) -> tuple[Dataset, np.typing.NDArray[np.float32]]:
    """Embeddings of length 1, around one axis for each class."""
    rng = np.random.default_rng(1)
    class_of = [index % classes for index in range(count)]
    points = np.eye(8, dtype=np.float32)[class_of] + rng.normal(0, 0.1, (count, 8)).astype(np.float32)
    return dataset(class_of, classes), points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_trained_weights_take_plain_embeddings_whatever_the_whitening(whitening: float) -> None:
    data, embeddings = clusters()
    settings = config(embedding_scale=20.0, embedding_whitening=whitening)
    trained = train_network(data, embeddings, settings, "cpu", QUIET)
    with torch.inference_mode():
        logits = load_network(trained.sizes, trained.weights)(torch.from_numpy(embeddings))
    assert (logits.argmax(1).numpy() == data.class_of).mean() == 1.0
    assert set(trained.weights) == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}


def test_the_same_input_gives_the_same_weights() -> None:
    data, embeddings = clusters()
    first, second = (train_network(data, embeddings, config(max_epochs=2), "cpu", QUIET) for _ in range(2))
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    other = train_network(data, embeddings, config(max_epochs=2, seed=1), "cpu", QUIET)
    assert not torch.equal(first.weights["fc1.weight"], other.weights["fc1.weight"])


def test_multiplying_all_weights_by_the_same_factor_changes_nothing() -> None:
    data, embeddings = clusters()
    heavy = dataset(data.class_of.tolist(), 3, weight=4)
    first = train_network(data, embeddings, config(max_epochs=2), "cpu", QUIET)
    second = train_network(heavy, embeddings, config(max_epochs=2), "cpu", QUIET)
    assert torch.equal(first.weights["fc1.weight"], second.weights["fc1.weight"])


def test_a_heavier_pair_wins_over_a_lighter_one_of_the_same_text() -> None:
    data, embeddings = clusters()
    twice = Dataset(
        texts=data.texts,
        classes=data.classes,
        text_of=np.repeat(data.text_of, 2),
        class_of=np.stack([data.class_of, (data.class_of + 1) % 3], axis=1).ravel(),
        weight=np.tile(np.array([5, 1], dtype=np.float32), len(data.texts)),
        variants=data.variants,
        conflicts=data.conflicts,
        unknown=data.unknown,
        counts={},
        rows_by_source={},
    )
    trained = train_network(twice, embeddings, config(), "cpu", QUIET)
    with torch.inference_mode():
        logits = load_network(trained.sizes, trained.weights)(torch.from_numpy(embeddings))
    assert (logits.argmax(1).numpy() == data.class_of).mean() == 1.0


@pytest.mark.parametrize("hierarchy_weight", [0.0, 0.5])
def test_the_loss_counts_chapters_and_headings(hierarchy_weight: float) -> None:
    classes = ["010121", "010129", "010221", "020110", VAGUE_CODE]
    loss_of = HierarchicalLoss(classes, config(hierarchy_weight=hierarchy_weight), torch.device("cpu"))
    chances = torch.tensor([[0.1, 0.2, 0.3, 0.35, 0.05], [0.05, 0.05, 0.1, 0.1, 0.7]])
    got = loss_of(torch.log(chances), torch.tensor([0, 4])).tolist()
    first = -math.log(0.1) - hierarchy_weight * (math.log(0.1 + 0.2 + 0.3) + math.log(0.1 + 0.2))
    second = -math.log(0.7) * (1 + 2 * hierarchy_weight)
    assert got == pytest.approx([first, second], rel=1e-5)


@pytest.mark.parametrize("hierarchy_weight", [0.0, 0.5])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_gradient_of_the_loss_equals_that_of_automatic_differentiation(
    hierarchy_weight: float, label_smoothing: float
) -> None:
    classes = ["010121", "010129", "010221", "020110", "020120", "999999", VAGUE_CODE]
    settings = config(hierarchy_weight=hierarchy_weight, label_smoothing=label_smoothing)
    right, weight = torch.tensor([0, 4, 6, 2]), torch.tensor([1.0, 0.5, 2.0, 0.0])
    logits = torch.randn(4, len(classes), generator=torch.Generator().manual_seed(1)).requires_grad_()
    losses = HierarchicalLoss(classes, settings, torch.device("cpu"))(logits, right)
    (got,) = torch.autograd.grad((losses * weight).sum(), logits)

    expected = torch.nn.functional.cross_entropy(
        logits, right, reduction="none", label_smoothing=label_smoothing
    )
    chances = torch.softmax(logits, dim=1)
    for digits in (2, 4):
        same = [[code[:digits] == classes[index][:digits] for code in classes] for index in right.tolist()]
        expected = expected - hierarchy_weight * torch.log((chances * torch.tensor(same)).sum(dim=1))
    (gradient,) = torch.autograd.grad((expected * weight).sum(), logits)
    assert torch.allclose(losses, expected, atol=1e-6)
    assert torch.allclose(got, gradient, atol=1e-6)


def test_the_loss_is_finite_when_probabilities_underflow() -> None:
    loss_of = HierarchicalLoss(["010121", "020110"], config(hierarchy_weight=0.5), torch.device("cpu"))
    logits = torch.tensor([[-500.0, 500.0]]).requires_grad_()
    loss = loss_of(logits, torch.tensor([0])).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    assert 1000 < loss.item() < 1100
    assert gradient.isfinite().all()


def test_networks_side_by_side_give_the_mean_of_their_logits() -> None:
    torch.manual_seed(0)
    networks = [Network(Sizes(4, 3, 2, 0.1, 0.4)).eval() for _ in range(3)]
    one = load_network(Sizes(4, 9, 2, 0.1, 0.4), side_by_side([network.weights() for network in networks]))
    inputs = torch.randn(5, 4)
    mean = torch.stack([network(inputs) for network in networks]).mean(dim=0)
    assert torch.allclose(one(inputs), mean, atol=1e-6)


def test_an_ensemble_is_combined_into_one_network_and_can_be_stored_in_float16() -> None:
    data, embeddings = clusters()
    changes = {"ensemble_size": 4, "weights_precision": "float16", "max_epochs": 10}
    trained = train_network(data, embeddings, config(**changes), "cpu", QUIET)
    assert trained.sizes.hidden_size == 16
    assert {value.dtype for value in trained.weights.values()} == {torch.float16}
    with torch.inference_mode():
        logits = load_network(trained.sizes, trained.weights)(torch.from_numpy(embeddings))
    assert logits.dtype == torch.float32
    assert (logits.argmax(1).numpy() == data.class_of).mean() == 1.0


def test_an_ensemble_is_the_same_however_many_threads_train_it() -> None:
    data, embeddings = clusters()
    threads = torch.get_num_threads()
    weights = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            trained = train_network(data, embeddings, config(ensemble_size=4, max_epochs=5), "cpu", QUIET)
            weights.append(trained.weights)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    network = Network(Sizes(1000, 3, 2, 0.4, 0.0)).train()
    network.generator = torch.Generator().manual_seed(0)
    dropped = network._drop_out(torch.ones(100, 1000), 0.4)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.4, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)
    assert torch.equal(network.eval()._drop_out(torch.ones(2, 1000), 0.4), torch.ones(2, 1000))


def test_the_vague_bias_changes_only_the_vague_class() -> None:
    data, embeddings = clusters()
    data.classes[2] = VAGUE_CODE
    plain = train_network(data, embeddings, config(max_epochs=1), "cpu", QUIET)
    biased = train_network(data, embeddings, config(max_epochs=1, vague_bias=-2.0), "cpu", QUIET)
    difference = biased.weights["fc2.bias"] - plain.weights["fc2.bias"]
    assert difference.tolist() == pytest.approx([0, 0, -2])


def test_the_temperature_divides_the_logits() -> None:
    data, embeddings = clusters()
    plain, flat = (
        train_network(data, embeddings, config(max_epochs=2, temperature=temperature), "cpu", QUIET)
        for temperature in (1.0, 2.0)
    )
    with torch.inference_mode():
        sure, unsure = (
            load_network(one.sizes, one.weights)(torch.from_numpy(embeddings)) for one in (plain, flat)
        )
    assert torch.allclose(unsure * 2, sure, atol=1e-5)


def test_nan_in_the_loss_is_an_error() -> None:
    data, embeddings = clusters()
    embeddings[0, 0] = np.nan
    with pytest.raises(TrainingError, match="Lower learning_rate") as caught:
        train_network(data, embeddings, config(), "cpu", QUIET)
    assert caught.value.reason is FailureCode.DIVERGED


def test_the_learning_rate_warms_up_and_falls_as_a_cosine() -> None:
    factor = warm_up_then_cosine(100, 0.05)
    rates = [factor(step) for step in range(101)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == 1.0
    assert rates[52] == pytest.approx(0.5, abs=0.02)
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert all(later <= earlier for earlier, later in pairwise(rates[5:]))
    assert warm_up_then_cosine(1, 0.0)(0) == 1.0


def test_a_gpu_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(ValueError, match="no such GPU"):
        choose_device("cuda")


SIZES = Sizes(4, 3, 2, 0.1, 0.4)
LANGUAGE = LanguageRules(("ENGLISH",), ("ENGLISH", "FRENCH"), 0.5, frozenset({"b", "a"}), (" iso",), ("le ",))
ANSWERS = Answers("t", "00", 6, frozenset({"b", "a"}), (r"^x\d$",), {"kettle": "851610"}, LANGUAGE)


def trained(seed: int = 0) -> Trained:
    torch.manual_seed(seed)
    return Trained(SIZES, Network(SIZES).weights(), (Epoch(0.7, 0.3), Epoch(0.5, 0.5)))


def test_a_model_is_packed_in_the_format_that_existing_inference_code_loads(tmp_path: Path) -> None:
    write_model(tmp_path / "model.zip", trained(), ["010121", "vvvvvvvvvv"], ANSWERS)
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert archive.read("target/model.toml").decode().splitlines() == [
            "input_size = 4",
            "hidden_size = 3",
            "output_size = 2",
            "dropout_layer_1_percentage = 0.1",
            "dropout_layer_2_percentage = 0.4",
        ]
        assert json.loads(archive.read("target/subheadings.json")) == ["010121", "vvvvvvvvvv"]
        weights = torch.load(io.BytesIO(archive.read("target/model.pt")), weights_only=True)
    assert {name: tuple(value.shape) for name, value in weights.items()} == {
        "fc1.weight": (3, 4),
        "fc1.bias": (3,),
        "fc2.weight": (2, 3),
        "fc2.bias": (2,),
    }
    model = read_model(tmp_path / "model.zip")
    assert model.answers == ANSWERS
    assert model.epochs == (Epoch(0.7, 0.3), Epoch(0.5, 0.5))
    assert model.classes == ["010121", "vvvvvvvvvv"]


def test_what_decides_beside_the_network_is_kept_among_the_weights(tmp_path: Path) -> None:
    of_one = Neighbours(torch.eye(4)[:1], torch.tensor([0]), torch.tensor([0]), 8.0)
    also = replace(trained(), neighbours=of_one, doubt_weight=0.5)
    write_model(tmp_path / "model.zip", also, ["010121", "vvvvvvvvvv"], ANSWERS, tuning=(Epoch(2.0, 0.7),))
    model = read_model(tmp_path / "model.zip")
    assert (model.doubt_weight, model.tuning) == (0.5, (Epoch(2.0, 0.7),))
    embeddings = torch.eye(4)
    with torch.inference_mode():
        alone = model.network(embeddings)
        found = model.logits(embeddings)
    # The first text is that neighbour, and the others are at a right angle to it.
    nearness = torch.tensor([8.0, 0.0, 0.0, 0.0])
    added = torch.stack([nearness, torch.full((4,), -8.0)], dim=1)
    assert torch.equal(found, decide(alone + added, 1, 0.5))
    # Code that loads the four tensors of the network, and does not know the others, fails.
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        weights = torch.load(io.BytesIO(archive.read("target/model.pt")), weights_only=True)
    with pytest.raises(RuntimeError, match=r"(?s)Unexpected key.*neighbours\.vectors.*doubt_weight"):
        Network(SIZES).load_state_dict(weights)


def test_a_model_of_an_earlier_release_is_read_without_its_languages_and_epochs(tmp_path: Path) -> None:
    write_model(tmp_path / "new.zip", trained(), ["010121", "vvvvvvvvvv"], ANSWERS)
    with zipfile.ZipFile(tmp_path / "new.zip") as new, zipfile.ZipFile(tmp_path / "old.zip", "w") as old:
        for name in new.namelist():
            content = new.read(name)
            if name == "target/answers.json":
                answers = json.loads(content)
                del answers["language"]
                content = json.dumps(answers).encode()
            if name != "target/losses.json":
                old.writestr(name, content)
    model = read_model(tmp_path / "old.zip")
    assert model.answers == replace(ANSWERS, language=None)
    assert model.epochs == ()


def test_the_same_model_has_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_model(tmp_path / name, trained(), ["010121", "010129"], ANSWERS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_that_is_not_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"no zip")
    write_model(tmp_path / "b", trained(), ["010121"], ANSWERS)
    for name in ("a", "b"):
        with pytest.raises(TrainingError) as caught:
            read_model(tmp_path / name)
        assert caught.value.reason is FailureCode.UNREADABLE_SOURCE
