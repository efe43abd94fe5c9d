"""What is in a `model.zip`: the digest of each file, the classes, and the weights."""

import json
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.steps.parts import UnknownParts, parts_of

WEIGHTS = "target/model.pt"
CLASSES = "target/subheadings.json"
TRANSFORMERS = "transformer/"
# There are some 15,000 codes of the nomenclature.
_LONGEST_CLASSES = 16 << 20


class UnreadablePackage(Exception):
    """The file is not a model's package. The text says why."""


@dataclass(frozen=True)
class Package:
    """`files` are the digests of its files by path. `weights` is a copy of the file with the weights."""

    files: dict[str, str]
    classes: tuple[str, ...]
    weights: Path

    @property
    def transformers(self) -> dict[str, str]:
        """The files of the transformers that a tuned model carries."""
        return {path: sha256 for path, sha256 in self.files.items() if path.startswith(TRANSFORMERS)}


def deciding(files: Mapping[str, str]) -> dict[str, str]:
    """Of the files of a package, by their digests, those that decide what the model answers."""
    return {
        path: sha256
        for path, sha256 in files.items()
        if path in (WEIGHTS, CLASSES) or path.startswith(TRANSFORMERS)
    }


def unpack(archive: Path, weights: Path, check: Callable[[], object]) -> Package:
    """Read a model.zip, and copy its weights to a file of their own. `check` is called between blocks.

    Raises UnreadablePackage.
    """
    try:
        files = {part.path: part.sha256 for part in parts_of(archive, check)}
        if missing := [name for name in (WEIGHTS, CLASSES) if name not in files]:
            message = f"it has no {' and no '.join(missing)}"
            raise UnreadablePackage(message)
        with zipfile.ZipFile(archive) as opened:
            if opened.getinfo(CLASSES).file_size > _LONGEST_CLASSES:
                message = f"{CLASSES} has more than {_LONGEST_CLASSES:,} bytes"
                raise UnreadablePackage(message)
            classes = json.loads(opened.read(CLASSES))
            # The size of the copy is bounded, because the archive was read as a whole above.
            with opened.open(WEIGHTS) as source, weights.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    except UnknownParts as exc:
        raise UnreadablePackage(str(exc)) from exc
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RecursionError) as exc:
        message = f"it cannot be read ({exc})"
        raise UnreadablePackage(message) from exc
    if not isinstance(classes, list) or not all(isinstance(one, str) for one in classes):
        message = f"{CLASSES} is not a list of classes"
        raise UnreadablePackage(message)
    return Package(files, tuple(classes), weights)
