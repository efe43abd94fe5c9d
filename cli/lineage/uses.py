"""`tariff-registry inputs`: which models an input went into, and which stages run them now."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.answers import read
from cli.arguments import ArgumentError, optional
from cli.client import path
from cli.output import plain
from cli.shell import Token, Url, client_of, console, exit_statuses

_DIGEST = re.compile(r"[0-9a-f]{64}")
# As many as the API gives in one answer.
_PAGE = 200


@dataclass(frozen=True)
class Running:
    """A stage that runs a model. `why` is why nobody can tell whether the input went into it."""

    stage: str
    prefix: str
    since: str
    why: str | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        why = document.get("why")
        return cls(
            stage=str(document["stage"]),
            prefix=str(document["prefix"]),
            since=str(document["since"]),
            why=None if why is None else str(why),
        )


@dataclass(frozen=True)
class User:
    """A model that the input went into. Each use names an input, and the file inside it, if it is one."""

    prefix: str
    published_at: str
    verdict: str
    runs_in: tuple[str, ...]
    uses: tuple[str, ...]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        return cls(
            prefix=str(document["prefix"]),
            published_at=str(document["published_at"]),
            verdict=str(document["verdict"]),
            runs_in=tuple(map(str, document["runs_in"])),
            uses=tuple(map(_use, document["uses"])),
        )


@dataclass(frozen=True)
class Users:
    """The models that an input went into, as far as they were asked for, and what the stages run now."""

    running: tuple[Running, ...]
    not_known: tuple[Running, ...]
    items: tuple[User, ...]
    more: bool
    # When garbage collection had deleted the content. A registry of an earlier release does not tell.
    collected_at: str | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        return cls(
            tuple(map(Running.of, document["running"])),
            tuple(map(Running.of, document["not_known"])),
            tuple(map(User.of, document["items"])),
            document["next"] is not None,
            document.get("collected_at"),
        )


def inputs(
    sha256: Annotated[
        str | None,
        typer.Argument(
            help="The sha256 of an input, or of a file inside the raw data or the benchmark data."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The name of an input, or the path of a file inside an archive.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A file, whose sha256 is computed.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many models, the newest first.")] = 50,
    url: Url = None,
    token: Token = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The API's answer, for scripts.")] = False,
) -> None:
    """Show which models an input went into, and which stages run one of them now."""
    with exit_statuses():
        wanted = [one for one in (sha256, name, file) if one is not None]
        if len(wanted) != 1:
            message = "Give one of these: a sha256, --name, or --file."
            raise ArgumentError(message)
        if name is not None:
            where, asked = path("inputs"), {"name": optional(name, "--name")}
        else:
            digest = _sha256_of(file) if file is not None else _digest(sha256)
            where, asked = path("inputs", digest), {}
        with client_of(url, token) as client:
            answer = client.listed(where, limit, **asked)
        found = read(answer, Users.of)
        if as_json:
            typer.echo(json.dumps(answer, indent=2))
        else:
            show(console, found)


def _digest(value: str | None) -> str:
    digest = (optional(value, "The sha256") or "").lower()
    if not _DIGEST.fullmatch(digest):
        message = f"{digest!r} is not a sha256. Write its 64 digits, or name the input with --name."
        raise ArgumentError(message)
    return digest


def _sha256_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def show(out: Console, found: Users) -> None:
    for one in found.running:
        out.print(Text(plain(f"{one.stage} runs {one.prefix}, since {one.since}"), "bold"), soft_wrap=True)
    if not found.running:
        out.print(Text("No stage runs a model of which it is known to be made from this."))
    for one in found.not_known:
        said = f"{one.stage} runs {one.prefix}, and nobody recorded whether it was made from this ({one.why})"
        out.print(Text(plain(said), "yellow"), soft_wrap=True)
    if found.collected_at is not None:
        said = f"Its content was collected at {found.collected_at}, so the bucket does not hold it any more."
        out.print(Text(plain(said), "yellow"), soft_wrap=True)
    table = Table("model", "published", "verdict", "runs in", "used as")
    for user in found.items:
        cells = (user.prefix, user.published_at, user.verdict, ", ".join(user.runs_in), ", ".join(user.uses))
        table.add_row(*(Text(plain(cell)) for cell in cells))
    out.print(table)
    if found.more:
        said = f"There are more models than these {len(found.items)}. Ask for more with --limit."
        out.print(Text(said), soft_wrap=True)


def _use(document: Mapping[str, Any]) -> str:
    inside, lines = document["path"], document["lines"]
    shown = str(document["name"]) if inside is None else f"{inside} in {document['name']}"
    return shown if lines is None else f"{shown} ({lines:,} lines)"
