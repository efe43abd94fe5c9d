"""The tuning of a real transformer on tens of texts, and the models that carry it."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli
import torch
from torch import nn

from tests.integration.training.test_pipeline import (
    CONFIG,
    GOODS,
    REPOSITORY,
    result,
    run,
    run_here,
    write_inputs,
)
from tests.unit.training.test_checkpoints import Killed, Mortal
from tests.unit.training.test_package import CLASSES, foreign_model
from tests.unit.training.test_train import dataset
from training.checkpoints import Checkpoints, identity_of_run
from training.config import VAGUE_CODE, TuningConfig, parse_config
from training.dataset.merge import Dataset
from training.distributed import ALONE
from training.embedding.encoder import Encoder
from training.embedding.transformer import Transformer, find_transformer
from training.errors import FailureCode, TrainingError
from training.evaluation.loading import load_classifier
from training.network.head import Head, Network, Sizes, load_network
from training.network.package import read_model
from training.network.refusal import decide
from training.progress import Progress
from training.tuning.loader import Loaded
from training.tuning.package import keep
from training.tuning.tune import Tuned, load, tune

QUIET = Progress(log=io.StringIO())
# Most layers are frozen, so that there is less to compute and to save.
SETTINGS = TuningConfig(batch_size=8, epochs=2, learning_rate=0.002, frozen_layers=4, frozen_embeddings=True)
TEXTS = sorted((name, code) for code, names in GOODS.items() for name in names)
# One network takes the embeddings of the original, one takes both, and the head has a share.
TUNED = CONFIG.replace(
    "max_epochs = 30\n",
    "max_epochs = 8\nensemble_size = 2\n",
).replace(
    "[benchmark_floors",
    '[tuning]\nbatch_size = 8\nlearning_rate = 0.001\nnetworks = ["base", "both"]\n[benchmark_floors',
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def transformer() -> Transformer:
    return find_transformer("all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def goods() -> Dataset:
    codes = sorted(GOODS)
    made = dataset([codes.index(code) for _, code in TEXTS], len(codes))
    return replace(made, texts=[name for name, _ in TEXTS], classes=codes)


@pytest.fixture(scope="module")
def embeddings(transformer: Transformer, goods: Dataset) -> np.typing.NDArray[np.float32]:
    return Encoder(transformer, "cpu", 8).encode(goods.texts, QUIET)


class Tuning:
    """Tunes with the fixtures, and may be killed."""

    def __init__(self, transformer: Transformer, goods: Dataset, embeddings: np.typing.NDArray[np.float32]):
        self._inputs = goods, transformer, embeddings
        self._config = parse_config(TUNED)

    def __call__(
        self, settings: TuningConfig = SETTINGS, folder: Path | None = None, progress: Progress = QUIET
    ) -> Tuned:
        checkpoints = Checkpoints(folder, 0, identity_of_run({}, "cpu", ALONE), progress.say)
        return tune(*self._inputs, self._config, settings, "cpu", progress, ALONE, checkpoints)


@pytest.fixture(scope="module")
def tuning(transformer: Transformer, goods: Dataset, embeddings: np.typing.NDArray[np.float32]) -> Tuning:
    return Tuning(transformer, goods, embeddings)


@pytest.fixture(scope="module")
def tuned(tuning: Tuning) -> Tuned:
    return tuning()


def same(one: Tuned, other: Tuned) -> bool:
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return (
        one.epochs == other.epochs
        and torch.equal(one.head, other.head)
        and all(torch.equal(ours, theirs) for ours, theirs in pairs)
    )


def test_tuning_brings_the_texts_of_a_class_together(
    tuned: Tuned, goods: Dataset, embeddings: np.typing.NDArray[np.float32]
) -> None:
    def closeness(vectors: np.typing.NDArray[np.float32]) -> float:
        """How much closer texts of the same class are than other texts, by cosine."""
        cosines = vectors @ vectors.T
        alike = goods.class_of[:, None] == goods.class_of[None, :]
        return float(cosines[alike].mean() - cosines[~alike].mean())

    after = tuned.model.encode(goods.texts, normalize_embeddings=True)
    assert closeness(after) > 1.2 * closeness(embeddings)
    assert [epoch.loss for epoch in tuned.epochs] == sorted((e.loss for e in tuned.epochs), reverse=True)
    logits = torch.from_numpy(after) @ tuned.head.T
    assert float((logits.argmax(dim=1).numpy() == goods.class_of).mean()) > 0.9


def test_the_number_of_cores_changes_nothing(tuning: Tuning, tuned: Tuned) -> None:
    torch.set_num_threads(3)
    try:
        assert same(tuning(), tuned)
    finally:
        torch.set_num_threads(1)


def test_a_tuning_that_is_killed_goes_on_to_the_same_bytes(
    tuning: Tuning, tuned: Tuned, tmp_path: Path
) -> None:
    # Each epoch has three batches and one line. It is killed in each epoch, and once while it goes on.
    for step in (2, 3, 4):
        with pytest.raises(Killed):
            tuning(folder=tmp_path, progress=Mortal(step))
    assert len(list(tmp_path.iterdir())) == 1
    again = Mortal()
    assert same(tuning(folder=tmp_path, progress=again), tuned)
    assert "the tuning goes on from a checkpoint in epoch 2 of 2" in again.said.getvalue()
    # A later part was ended: the tuning is done, and is not done again.
    once_more = Mortal(2)
    assert same(tuning(folder=tmp_path, progress=once_more), tuned)
    assert "taken from its checkpoint" in once_more.said.getvalue()


def test_frozen_layers_keep_their_weights(tuning: Tuning, tuned: Tuned, transformer: Transformer) -> None:
    before = dict(load(transformer, "cpu").named_parameters())
    changed = {name for name, value in tuned.model.named_parameters() if not torch.equal(value, before[name])}
    layers = {int(found[1]) for name in changed if (found := re.search(r"\.layer\.(\d+)\.", name))}
    assert layers == {4, 5}
    assert not any("embeddings" in name for name in changed)
    with pytest.raises(TrainingError, match="the transformer has 6 layers") as refused:
        tuning(SETTINGS.model_copy(update={"frozen_layers": 6}))
    assert refused.value.reason is FailureCode.INVALID_CONFIG


def test_a_kept_transformer_is_rounded_and_read_like_its_original(
    tuned: Tuned, transformer: Transformer, goods: Dataset, tmp_path: Path
) -> None:
    kept = keep(tuned.model, transformer, tmp_path / "kept")
    assert kept.sha256 != transformer.sha256
    paths = {file.path for file in transformer.files}
    assert {file.path for file in kept.files} == paths
    size = (kept.folder / "model.safetensors").stat().st_size
    assert size < 0.51 * (transformer.folder / "model.safetensors").stat().st_size
    encoder = Encoder(kept, "cpu", 8)
    assert next(encoder.model.parameters()).dtype is torch.float32
    expected = tuned.model.encode(goods.texts, normalize_embeddings=True)
    assert np.allclose(encoder.encode(goods.texts, QUIET), expected, atol=0.005)


def test_a_head_is_the_same_as_a_network() -> None:
    head = Head(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), slice(0, 4), 0.5)
    inputs = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
    network = load_network(Sizes(4, 8, 5, 0.0, 0.0), head.as_network())
    with torch.inference_mode():
        assert torch.allclose(network(inputs), inputs @ head.weights.T, atol=1e-5)


# Models


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build with a tuned transformer, trained and measured."""
    folder = tmp_path_factory.mktemp("tuned")
    write_inputs(folder)
    (folder / "search-config.toml").write_text(TUNED)
    raw = ("--raw-source-data", str(folder / "raw_source_data.zip"))
    run_here(folder, "train", *raw, "--embedding-cache", str(folder / "cache"))
    (folder / "output" / "result.json").rename(folder / "trained.json")
    run_here(folder, "benchmark", "--benchmarking-data", str(folder / "benchmarking_data.zip"))
    return folder


def test_a_run_reports_the_tuning_and_the_original_transformer(build: Path, transformer: Transformer) -> None:
    trained = json.loads((build / "trained.json").read_text())
    assert [one["epoch"] for one in trained["tuning"]] == [1, 2]
    phases = [one["phase"] for one in trained["phases"]]
    assert phases == ["clean", "embed", "tune", "embed", "train", "package"]
    lines = [json.loads(line) for line in (build / "output" / "progress.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["phase"] == "tune"][-1]
    assert last["done"] == last["total"]
    assert last["metrics"]["epoch"] == 2
    (used,) = (one for one in trained["inputs"] if one["kind"] == "transformer")
    assert (used["sha256"], used["details"]["tuned"]) == (transformer.sha256, True)
    assert trained["config"]["tuning"]["networks"] == ["base", "both"]
    assert parse_config(TUNED).tuning == TuningConfig.model_validate(trained["config"]["tuning"])


def test_a_tuned_model_is_measured_and_classifies(build: Path) -> None:
    assert result(build, "output")["metrics"]["everyday"]["top_1"] >= 0.5
    assert "851610" in run_here(build, "classify", "electric kettle")


def test_a_tuned_model_carries_its_transformers_and_nothing_else_is_left(build: Path) -> None:
    model = build / "output" / "model.zip"
    # The present models have 181.5 MiB.
    assert model.stat().st_size < 100 << 20
    with zipfile.ZipFile(model) as archive:
        names = set(archive.namelist())
        answers = json.loads(archive.read("target/answers.json"))
    assert {f"transformer/{one}/model.safetensors" for one in ("base", "tuned")} <= names
    assert [one["folder"] for one in answers["transformers"]] == ["transformer/base", "transformer/tuned"]
    assert {"target/losses.json", "target/tuning_losses.json"} <= names
    assert "The tuning of the transformer" in (build / "output" / "training_report.html").read_text("utf-8")
    left = {path.name for path in (build / "output").iterdir()} - {"result.json", "progress.jsonl"}
    assert left == {
        "model.zip",
        "benchmark_results.xml",
        "benchmark_results.zip",
        "training_report.html",
        "inputs",
    }


def test_the_loader_for_services_gives_the_same_scores(build: Path) -> None:
    model = build / "output" / "model.zip"
    texts = [name for name, _ in TEXTS]
    loaded = Loaded.of(model)
    network = load_classifier(parse_config(TUNED), model)
    for text, scores in zip(texts, loaded.scores(texts), strict=True):
        assert sum(scores.values()) == pytest.approx(1, abs=1e-4)
        # A search reference is answered without the network, with a score of 1.
        best = network.classify(text)[:1]
        assert not best or best[0].score == 1 or max(scores, key=scores.__getitem__) == best[0].code
    assert loaded.embed(["Kettle"]).shape == (1, 768)


def test_the_loader_for_services_decides_in_the_same_way(build: Path) -> None:
    loaded, ours = Loaded.of(build / "output" / "model.zip"), read_model(build / "output" / "model.zip")
    embeddings = loaded.embed([name for name, _ in TEXTS])
    with torch.inference_mode():
        assert torch.equal(loaded.logits(embeddings), ours.logits(embeddings))
        assert not torch.equal(loaded.logits(embeddings), ours.network(embeddings))
    assert loaded.doubt_weight == ours.doubt_weight > 0
    # The network of this test has no doubts about its texts.
    vague = loaded.classes.index(VAGUE_CODE)
    given = torch.randn(200, len(loaded.classes), generator=torch.Generator().manual_seed(1))
    decided = replace(loaded, network=nn.Identity(), neighbours={}).logits(given.clone())
    assert torch.equal(decided, decide(given, vague, loaded.doubt_weight))
    usual, refused = (int((one.argmax(dim=1) == vague).sum()) for one in (given, decided))
    assert 0 < usual < refused < len(given)


def test_the_example_for_services_works(
    build: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (REPOSITORY / "docs" / "training.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?tuning\.loader.*?)```", page, re.DOTALL)
    monkeypatch.chdir(build)
    exec(example, {})
    assert capsys.readouterr().out.split() == ["851610"]


def deployed(model: Path, sizes: dict[str, float] | None = None) -> tuple[nn.Module, list[str]]:
    """Loads a model as the deployed service does, which has a transformer of its own."""
    with zipfile.ZipFile(model) as archive:
        described = sizes or tomli.loads(archive.read("target/model.toml").decode())
        network = Network(Sizes(**described))
        network.load_state_dict(torch.load(io.BytesIO(archive.read("target/model.pt")), weights_only=True))
        classes: list[str] = json.loads(archive.read("target/subheadings.json"))
    return network.eval(), classes


def test_a_service_with_its_own_transformer_cannot_load_a_tuned_model(build: Path, tmp_path: Path) -> None:
    model = build / "output" / "model.zip"
    with pytest.raises(TypeError, match="network_for_tuned_transformer"):
        deployed(model)
    # Not even a service that has written the sizes into its code.
    with zipfile.ZipFile(model) as archive:
        sizes = tomli.loads(archive.read("target/model.toml").decode())["network_for_tuned_transformer"]
    with pytest.raises(
        RuntimeError, match=r"(?s)Missing key.*fc1\.weight.*Unexpected.*for_tuned_transformer"
    ):
        deployed(model, sizes)
    # A model of existing tools is loaded.
    _, classes = deployed(foreign_model(tmp_path / "model.zip", CLASSES))
    assert classes == CLASSES


def test_a_model_whose_transformer_was_exchanged_is_refused(build: Path, tmp_path: Path) -> None:
    changed = tmp_path / "model.zip"
    with (
        zipfile.ZipFile(build / "output" / "model.zip") as archive,
        zipfile.ZipFile(changed, "w") as other,
    ):
        for name in archive.namelist():
            content = archive.read(name)
            other.writestr(name, content[:-1] + b"?" if name == "transformer/tuned/vocab.txt" else content)
    with pytest.raises(TrainingError, match="does not have the transformer/tuned"):
        load_classifier(parse_config(TUNED), changed)


def test_two_processes_tune_the_same_transformer_as_one(build: Path, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    config = TUNED.replace('networks = ["base", "both"]', 'networks = ["base"]')
    config = config.replace("digits = 6", "digits = 6\nprocesses = 2").replace("_epochs = 8", "_epochs = 1")
    (tmp_path / "search-config.toml").write_text(config)
    done = run(tmp_path, "train", REPOSITORY, TRAINING_EMBEDDING_CACHE=str(build / "cache"))
    assert done.returncode == 0, done.stdout + done.stderr
    told = result(tmp_path, "train")["tuning"]
    alone = json.loads((build / "trained.json").read_text())["tuning"]
    for ours, theirs in zip(told, alone, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=0.02)
