"""Shows what differs between the inputs of two models, as a comparison tells of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console
from rich.text import Text

from cli.output import plain


@dataclass(frozen=True)
class Change:
    """Something that differs, with what it is in both models. None where one model has nothing like it."""

    what: str
    this: str | None
    other: str | None

    @classmethod
    def of_config(cls, document: Mapping[str, Any]) -> Self:
        return cls(str(document["key"]), _text(document["this"]), _text(document["other"]))

    @classmethod
    def of_package(cls, document: Mapping[str, Any]) -> Self:
        return cls(
            f"package {document['name']}", _text(document["version"]), _text(document["other_version"])
        )

    @classmethod
    def of_fact(cls, document: Mapping[str, Any]) -> Self:
        what = f"{document['kind']} {document['fact']}"
        return cls(what, _text(document["this"]), _text(document["other"]))

    @classmethod
    def of_input(cls, document: Mapping[str, Any]) -> Self:
        what = f"{document['kind']} {document['name']}"
        return cls(what, _text(document["this"]), _text(document["other"]))


@dataclass(frozen=True)
class FileChange:
    """A file inside an archive that differs, with the lines of a table."""

    archive: str
    path: str
    change: str
    lines: int | None
    other_lines: int | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        return cls(
            archive=str(document["archive"]),
            path=str(document["path"]),
            change=str(document["change"]),
            lines=document["lines"],
            other_lines=document["other_lines"],
        )


@dataclass(frozen=True)
class MadeFrom:
    """What differs between that from which two models were made."""

    commit: str
    other_commit: str
    config: tuple[Change, ...]
    inputs: tuple[Change, ...]
    files: tuple[FileChange, ...]
    files_total: int
    # A registry of an earlier release does not tell these.
    packages: tuple[Change, ...]
    packages_total: int
    facts: tuple[Change, ...]
    not_known: tuple[str, ...]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        return cls(
            str(document["commit"]),
            str(document["other_commit"]),
            tuple(map(Change.of_config, document["config"])),
            tuple(map(Change.of_input, document["inputs"])),
            tuple(map(FileChange.of, document["files"])),
            int(document["files_total"]),
            tuple(map(Change.of_package, document.get("packages", ()))),
            int(document.get("packages_total", 0)),
            tuple(map(Change.of_fact, document.get("facts", ()))),
            tuple(map(str, document["not_known"])),
        )


def show_made_from(out: Console, found: MadeFrom) -> None:
    """One line for each difference: first what it is in the other model, then in this one."""

    def line(text: str, style: str = "") -> None:
        out.print(Text(plain(text), style), soft_wrap=True)

    line("made from")
    if found.commit != found.other_commit:
        line(f"  commit  {found.other_commit} → {found.commit}")
    for change in (*found.config, *found.inputs, *found.facts, *found.packages):
        line(f"  {change.what}  {_or_none(change.other)} → {_or_none(change.this)}")
    if found.packages_total > len(found.packages):
        line(f"  and {found.packages_total - len(found.packages)} more packages")
    for file in found.files:
        line(f"  {file.path} in {file.archive}  {file.change}{_lines(file)}")
    if found.files_total > len(found.files):
        line(f"  and {found.files_total - len(found.files)} more files")
    differing = (*found.config, *found.inputs, *found.facts, *found.packages, *found.files, *found.not_known)
    if found.commit == found.other_commit and not differing:
        line("  the same commit, configuration and inputs")
    for sentence in found.not_known:
        line(f"  not known: {sentence}", "yellow")


def _lines(file: FileChange) -> str:
    if file.lines is not None and file.other_lines is not None:
        return f", {file.other_lines:,} → {file.lines:,} lines"
    one = file.lines if file.lines is not None else file.other_lines
    return "" if one is None else f", {one:,} lines"


def _or_none(value: str | None) -> str:
    return "–" if value is None else value


def _text(value: object) -> str | None:
    return None if value is None else str(value)
