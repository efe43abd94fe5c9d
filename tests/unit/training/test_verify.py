import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from training import pipeline
from training.config import SearchConfig, parse_config
from training.errors import TrainingError
from training.pipeline import Outcome, Places
from training.progress import Progress

CONFIG = parse_config('name = "m"\nversion = "0.1.0"\n')


def verify(monkeypatch: pytest.MonkeyPatch, output: Path, models: Iterator[bytes]) -> list[Places]:
    """Verify with a fake training that writes the next of the models. Returns the places it received."""
    given: list[Places] = []

    def train(config: SearchConfig, raw: Path, folder: Path, progress: Progress, places: Places) -> Outcome:
        given.append(places)
        (folder / "model.zip").write_bytes(next(models))
        return Outcome([folder / "model.zip"], [], {"loss": 0.5})

    monkeypatch.setattr(pipeline, "train", train)
    quiet = Progress(log=io.StringIO())
    outcome = pipeline.verify(CONFIG, Path("raw"), output, quiet, Places(embedding_cache="cache"))
    assert outcome.files == [output / "model.zip"]
    return given


def test_verify_trains_a_second_time_without_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, second = verify(monkeypatch, tmp_path, iter([b"same", b"same"]))
    assert (first.embedding_cache, second.embedding_cache) == ("cache", None)
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]


def test_verify_fails_when_the_two_models_differ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="gave two different models"):
        verify(monkeypatch, tmp_path, iter([b"one", b"other"]))


def test_verify_compares_only_in_the_leader_of_several_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RANK", "1")
    without_files = Outcome([tmp_path / "model.zip"], [], {"loss": 0.5})
    monkeypatch.setattr(pipeline, "train", lambda *arguments: without_files)
    quiet = Progress(log=io.StringIO())
    assert pipeline.verify(CONFIG, Path("raw"), tmp_path, quiet, Places()) is without_files
