"""The plan of garbage collection on the terminal: what would be deleted, and what is kept."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Self

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.answers import read
from cli.arguments import model_prefix
from cli.output import counted, plain
from cli.shell import Token, Url, client_of, console, exit_statuses, say

_PAGE = 200
_UNITS = ("byte", "kB", "MB", "GB", "TB", "PB")


class PlanVerdict(StrEnum):
    """Whether a model may be deleted. The same as the API's; a test compares them."""

    DOOMED = "doomed"
    KEPT = "kept"


@dataclass(frozen=True)
class Planned:
    """A model, and what is to become of it."""

    prefix: str
    verdict: str
    state: str
    reasons: tuple[str, ...]
    objects: int
    size_bytes: int

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        return cls(
            prefix=str(document["prefix"]),
            verdict=str(document["verdict"]),
            state=str(document["state"]),
            reasons=tuple(str(reason["text"]) for reason in document["reasons"]),
            objects=int(document["objects"]),
            size_bytes=int(document["size"]),
        )


@dataclass(frozen=True)
class Total:
    prefixes: int
    objects: int
    size_bytes: int

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        return cls(int(document["prefixes"]), int(document["objects"]), int(document["size"]))

    def __str__(self) -> str:
        objects = counted(self.objects, "object")
        return f"{counted(self.prefixes, 'model')}, {objects}, {size(self.size_bytes)}"


@dataclass(frozen=True)
class Plan:
    """The plan, with some of its models."""

    digest: str
    knows_branches: bool
    fetched_at: str | None
    problem: str | None
    doomed: Total
    kept: Total
    reasons: Mapping[str, int]
    models: tuple[Planned, ...]
    next: str | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        branches = document["branches"]
        return cls(
            digest=str(document["digest"]),
            knows_branches=bool(branches["current"]),
            fetched_at=_optional(branches["fetched_at"]),
            problem=_optional(branches["problem"]),
            doomed=Total.of(document["doomed"]),
            kept=Total.of(document["kept"]),
            reasons={str(reason): int(count) for reason, count in document["reasons"].items()},
            models=tuple(Planned.of(item) for item in document["items"]),
            next=_optional(document["next"]),
        )


def plan(
    prefix: Annotated[str | None, typer.Argument(help="Only this model, such as 0.0.2-aff1242.")] = None,
    verdict: Annotated[
        PlanVerdict | None, typer.Option(help="Only models that may be deleted, or only those that stay.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many models at most.")] = 50,
    url: Url = None,
    token: Token = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The API's answer, for scripts.")] = False,
) -> None:
    """Show which models may be deleted and why, and which stay and why. Nothing is changed."""
    with exit_statuses():
        wanted = None if prefix is None else model_prefix(prefix)
        if verdict is None and wanted is None and not as_json:
            verdict = PlanVerdict.DOOMED
        with client_of(url, token) as client:
            answer = client.listed(
                "/gc/plan", limit, prefix=wanted, verdict=None if verdict is None else verdict.value
            )
        found = read(answer, Plan.of)
        if as_json:
            typer.echo(json.dumps(answer, indent=2))
        else:
            show_plan(console, found)
            if wanted is not None and not found.models:
                say(f"{wanted} is not in the plan: there is no such model, or its files are deleted.")


def show_plan(to: Console, found: Plan) -> None:
    if found.models:
        table = Table("model", "verdict", "state", "objects", "size", "why")
        for each in found.models:
            row = (each.prefix, each.verdict, each.state, f"{each.objects:,}", size(each.size_bytes))
            table.add_row(*(Text(plain(cell)) for cell in row), Text(plain(" ".join(each.reasons))))
        to.print(table)
    if found.next is not None:
        to.print(Text("There are more. Show them with --limit."))
    to.print(Text(f"may be deleted: {found.doomed}"))
    to.print(Text(f"kept:           {found.kept}"))
    for reason, count in found.reasons.items():
        to.print(Text(f"  {count:>7,}  {plain(reason).replace('_', ' ')}"))
    if not found.knows_branches:
        since = f" since {plain(found.fetched_at)}" if found.fetched_at else ""
        said = f"The branches are not known{since}, so nothing may be deleted."
        to.print(Text(said, "yellow"), soft_wrap=True)
    if found.problem is not None:
        to.print(Text(f"  {plain(found.problem)}", "yellow"), soft_wrap=True)
    to.print(Text(f"digest of the plan: {plain(found.digest)}"), soft_wrap=True)


def size(size_bytes: int) -> str:
    """The number of bytes as people read it: 48.2 MB."""
    value, unit = float(size_bytes), 0
    # What would be rounded to 1000 of a unit is one of the next.
    while value >= 999.95 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return counted(size_bytes, _UNITS[0]) if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def _optional(value: object) -> str | None:
    return None if value is None else str(value)
