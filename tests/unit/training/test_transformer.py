"""Which folder or which revision of the hub a transformer's name leads to."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from training.embedding.transformer import find_transformer
from training.errors import FailureCode, TrainingError

REVISION = "0" * 40


def model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "modules.json").write_text("[]")
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str | None]]:
    """The repositories and revisions that the hub was asked for. Its cache is empty."""
    asked: list[tuple[str, str | None]] = []

    def download(repository: str, *, revision: str | None = None, local_files_only: bool = False) -> str:
        if local_files_only:
            raise LocalEntryNotFoundError("not in the cache")
        asked.append((repository, revision))
        return str(model(tmp_path / "downloaded"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return asked


def find(name: str, tmp_path: Path) -> Path:
    return find_transformer(name, home=tmp_path / "home", checkout=tmp_path / "checkout").folder


def test_a_name_is_looked_for_on_the_machine_first(asked: list[Any], tmp_path: Path) -> None:
    expected = model(tmp_path / "home/training/transformers/all-mpnet-base-v2")
    assert find("all-mpnet-base-v2", tmp_path) == expected
    assert asked == []


def test_a_known_name_is_downloaded_in_a_fixed_revision(asked: list[Any], tmp_path: Path) -> None:
    find("all-mpnet-base-v2", tmp_path)
    ((repository, revision),) = asked
    assert repository == "sentence-transformers/all-mpnet-base-v2"
    assert len(revision) == 40


def test_another_name_is_never_downloaded(asked: list[Any], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="Install it on the image") as caught:
        find("other-model", tmp_path)
    assert caught.value.reason is FailureCode.MISSING_SOURCE
    assert asked == []


@pytest.mark.parametrize(
    ("name", "repository"),
    [("organisation/model", "organisation/model"), ("model", "sentence-transformers/model")],
)
def test_a_pinned_revision_is_downloaded(
    asked: list[Any], tmp_path: Path, name: str, repository: str
) -> None:
    model(tmp_path / "home/training/transformers" / name)
    assert find(f"{name}@{REVISION}", tmp_path) == tmp_path / "downloaded"
    assert asked == [(repository, REVISION)]


def test_a_folder_in_the_checkout_is_used(asked: list[Any], tmp_path: Path) -> None:
    expected = model(tmp_path / "checkout/models/mine")
    assert find("./models/mine", tmp_path) == expected
    assert asked == []


def test_a_folder_that_leads_outside_the_checkout_is_refused(asked: list[Any], tmp_path: Path) -> None:
    outside = model(tmp_path / "outside")
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "mine").symlink_to(outside)
    with pytest.raises(TrainingError) as caught:
        find("./mine", tmp_path)
    assert caught.value.reason is FailureCode.INVALID_CONFIG
    inside = model(tmp_path / "checkout/other")
    (inside / "vocab.txt").symlink_to("/etc/passwd")
    with pytest.raises(TrainingError, match="leads outside"):
        find("./other", tmp_path)


def test_a_folder_without_a_model_is_refused(asked: list[Any], tmp_path: Path) -> None:
    (tmp_path / "checkout" / "empty").mkdir(parents=True)
    with pytest.raises(TrainingError, match="in the checkout"):
        find("./empty", tmp_path)


def test_the_revision_and_the_digest_of_each_file_are_reported(asked: list[Any], tmp_path: Path) -> None:
    folder = model(tmp_path / "home/training/transformers/all-mpnet-base-v2")
    (folder / ".revision").write_text(f"{REVISION}\n")
    found = find_transformer("all-mpnet-base-v2", home=tmp_path / "home").as_input()
    assert found.details == {"found_in": "image", "revision": REVISION}
    assert found.url == f"pkg:huggingface/sentence-transformers/all-mpnet-base-v2@{REVISION}"
    assert [(part.path, part.size_bytes) for part in found.parts] == [("modules.json", 2)]
    assert asked == []


def test_the_hubs_cache_says_which_commit_a_revision_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = model(tmp_path / "models--org--m" / "snapshots" / REVISION)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(cached))
    found = find_transformer("org/m@main", home=tmp_path)
    assert (found.found_in, found.revision) == ("hub", REVISION)
    assert found.url == f"pkg:huggingface/org/m@{REVISION}"
