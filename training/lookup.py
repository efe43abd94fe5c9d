"""Finds the files that a configuration names, and nothing else of the machine."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Final

from training.errors import FailureCode, TrainingError
from training.files import is_leftover

TABLES: Final = (".csv", ".csv.gz", ".xlsx")
FORMS: Final = "*.csv, *.csv.gz and *.xlsx"
_ABOUT_DATA: Final = re.compile(r"(?:readme|licen[cs]e|changelog|notice)\b|.*\.(?:md|rst)$", re.IGNORECASE)
_LISTED: Final = 5


def tables_in(folder: Path) -> list[Path]:
    """The tables of a folder and its sub-folders, sorted by their paths, whatever the case of their names."""
    return [path for path in _files_in(folder) if path.name.lower().endswith(TABLES)]


def passed_over_in(folder: Path) -> str | None:
    """What to do about files of a folder that are not tables; None if there are none.

    Nothing is to be done about what systems leave behind, and about texts that describe the data.
    """
    others = [
        path.relative_to(folder).as_posix()
        for path in _files_in(folder)
        if not path.name.lower().endswith(TABLES) and not _ABOUT_DATA.match(path.name)
    ]
    if not others:
        return None
    more = f" and {len(others) - _LISTED} more" if len(others) > _LISTED else ""
    return (
        f"{', '.join(others[:_LISTED])}{more}: not read, because only {FORMS} files are. Save the data in "
        "one of these forms, or remove the files."
    )


def _files_in(folder: Path) -> list[Path]:
    found = [
        path for path in folder.rglob("*") if not is_leftover(path.relative_to(folder)) and not path.is_dir()
    ]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


@dataclass(frozen=True)
class Lookup:
    """Finds the files that a configuration names: first in the unpacked raw data, then in the checkout.

    What is found lies within one of the two, also after links have been followed, and is not hidden there. A
    configuration must not be able to read other files of the machine into a model that many may download.
    """

    unpacked: Path
    checkout: Path
    # What asked for each file that was found, and the file.
    handed_out: list[tuple[str, Path]] = field(default_factory=list, compare=False)

    def find(self, name: str, *, what: str) -> Path:
        """`what` names the key or source that asks for the file, for the error.

        Raises `missing_source` if there is nothing, and `invalid_config` if it is not within the two folders.
        """
        candidates = list(self._candidates(name))
        for root, candidate in candidates:
            if candidate.exists():
                self._require_within(root, candidate, what)
                return candidate
        # Some systems write é as two characters, others as one.
        for root, candidate in candidates:
            if (other := _in_another_form(root, candidate)) is not None:
                self._require_within(root, other, what)
                return other
        raise TrainingError(
            FailureCode.MISSING_SOURCE,
            f"{what}: {name} is neither in the raw source data nor in the checkout ({self.checkout}). "
            f"{self._hint(name)}Add it to raw_source_data.zip, or remove its key from search-config.toml.",
        )

    def has(self, name: str) -> bool:
        return any(candidate.exists() for _, candidate in self._candidates(name))

    def find_file(self, name: str, *, what: str) -> Path:
        """Like `find`. Raises `invalid_config` for anything but a regular file."""
        path = self.find(name, what=what)
        if path.is_dir():
            raise TrainingError(FailureCode.INVALID_CONFIG, f"{what}: {name} is a folder. Name a file.")
        _require_regular(path, what)
        self.handed_out.append((what, path))
        return path

    def find_tables(self, folder: str, *, what: str) -> list[Path]:
        """The tables of a folder and its sub-folders, sorted.

        Hidden files and what systems leave behind are passed over. Raises `invalid_config` for anything but
        regular files.
        """
        path = self.find(folder, what=what)
        if not path.is_dir():
            raise TrainingError(
                FailureCode.INVALID_CONFIG, f"{what}: {folder} is not a folder. Name a folder."
            )
        root = self.unpacked if path.is_relative_to(self.unpacked) else self.checkout
        files = tables_in(path)
        for file in files:
            self._require_within(root, file, what)
            _require_regular(file, what)
        self.handed_out.extend((what, file) for file in files)
        return files

    def _candidates(self, name: str) -> Iterator[tuple[Path, Path]]:
        """Each with the folder that it must lie in."""
        path = Path(name)
        yield self.unpacked, self.unpacked / path
        # Depending on how the zip was made, its paths have one folder more or one folder less.
        if not path.is_absolute():
            for folder in sorted(self.unpacked.iterdir()):
                if folder.is_dir() and not is_leftover(PurePath(folder.name)):
                    yield self.unpacked, folder / path
            if len(path.parts) > 1:
                yield self.unpacked, self.unpacked.joinpath(*path.parts[1:])
        yield self.checkout, self.checkout / path

    def _hint(self, name: str) -> str:
        """Names the file whose name differs only in the case of its letters."""
        wanted = PurePath(name).name.lower()
        for path in sorted(self.unpacked.rglob("*")):
            if path.name.lower() == wanted:
                return f"There is {path.relative_to(self.unpacked).as_posix()}. "
        return ""

    @staticmethod
    def _require_within(root: Path, path: Path, what: str) -> None:
        root, real = root.resolve(), path.resolve()
        if real.is_relative_to(root):
            parts = real.relative_to(root).parts
            if not any(part.startswith(".") for part in parts):
                return
        raise TrainingError(
            FailureCode.INVALID_CONFIG,
            f"{what}: {path.name} is hidden, or leads outside the raw source data and the checkout. "
            "Name a file within them.",
        )


def _require_regular(path: Path, what: str) -> None:
    """Reading a pipe would wait for ever, and a device may never end."""
    if not path.is_file():
        raise TrainingError(
            FailureCode.INVALID_CONFIG, f"{what}: {path.name} is not a regular file. Name a regular file."
        )


def _in_another_form(root: Path, path: Path) -> Path | None:
    """The one file whose path is the same text in another Unicode form; None if there is not just one."""
    if not path.is_relative_to(root) or ".." in path.parts:
        return None
    found = root
    for part in path.relative_to(root).parts:
        if not found.is_dir():
            return None
        wanted = unicodedata.normalize("NFC", part)
        same = [one for one in found.iterdir() if unicodedata.normalize("NFC", one.name) == wanted]
        if len(same) != 1:
            return None
        found = same[0]
    return found
