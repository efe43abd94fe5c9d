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
    """Verify with a training that writes the next of the models; returns the places that it was given."""
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


def test_the_same_bytes_twice_are_verified_and_the_second_time_without_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, second = verify(monkeypatch, tmp_path, iter([b"same", b"same"]))
    assert (first.embedding_cache, second.embedding_cache) == ("cache", None)
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]


def test_other_bytes_are_an_error_with_both_digests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the same inputs gave two models"):
        verify(monkeypatch, tmp_path, iter([b"one", b"other"]))


def test_of_several_processes_the_leader_alone_has_models_to_compare(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RANK", "1")
    without_files = Outcome([tmp_path / "model.zip"], [], {"loss": 0.5})
    monkeypatch.setattr(pipeline, "train", lambda *arguments: without_files)
    quiet = Progress(log=io.StringIO())
    assert pipeline.verify(CONFIG, Path("raw"), tmp_path, quiet, Places()) is without_files
