"""`tariff-registry gc release-rule`: rules by which models may go that were in staging or production."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self
from uuid import UUID

import typer

from cli.answers import read
from cli.arguments import ArgumentError, optional, text
from cli.client import path
from cli.output import counted, plain
from cli.shell import EXITS, Token, Url, client_of, exit_statuses, say

app = typer.Typer(
    no_args_is_help=True,
    help="Rules that release models that were in staging or production. Setting and removing one needs the "
    "scope admin.",
)


@dataclass(frozen=True)
class ReleaseRule:
    """A rule, and how many models it is about."""

    id: str
    state: str
    versions: str | None
    branches: str | None
    reason: str
    models: int
    created_by: str
    created_at: str

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        versions, branches = document["versions"], document["branches"]
        return cls(
            id=str(document["id"]),
            state=str(document["state"]),
            versions=None if versions is None else str(versions),
            branches=None if branches is None else str(branches),
            reason=str(document["reason"]),
            models=int(document["models"]),
            created_by=str(document["created_by"]),
            created_at=str(document["created_at"]),
        )

    def __str__(self) -> str:
        given = {"versions": self.versions, "branches": self.branches}
        return ", ".join(f"{name} {pattern}" for name, pattern in given.items() if pattern is not None)


@app.command(epilog=EXITS)
def add(
    reason: Annotated[str, typer.Option(help="Why these models may be deleted.")],
    versions: Annotated[
        str | None, typer.Option(help="The versions; * stands for any characters: '0.0.*'.")
    ] = None,
    branches: Annotated[
        str | None, typer.Option(help="The branches; * also stands for slashes: 'feature/*'.")
    ] = None,
    url: Url = None,
    token: Token = None,
) -> None:
    """Release all models of some versions, of some branches, or of both. The rule's id is printed on stdout.

    Nothing is marked before the next collection, and all other conditions stay as they are.
    """
    with exit_statuses():
        body = {
            "versions": optional(versions, "--versions"),
            "branches": optional(branches, "--branches"),
            "reason": text(reason, "--reason"),
        }
        with client_of(url, token) as client:
            made = read(client.post("/gc/release-rules", body, repeatable=True), ReleaseRule.of)
        how_many = "no model" if made.models == 0 else counted(made.models, "model")
        say(
            f"The rule for {made} is about {how_many} now, of those that were in staging or production. "
            "`tariff-registry gc plan` shows what may go."
        )
        typer.echo(plain(made.id))


@app.command("list", epilog=EXITS)
def list_rules(
    url: Url = None,
    token: Token = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were revoked.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The API's answer, for scripts.")] = False,
) -> None:
    """Show the rules that hold, newest first."""
    with exit_statuses():
        with client_of(url, token) as client:
            answer = client.listed("/gc/release-rules", state=None if everything else "active")
        found = read(answer, lambda page: list(map(ReleaseRule.of, page["items"])))
        if as_json:
            typer.echo(json.dumps(answer, indent=2))
            return
        if not found:
            say("There is no release rule." if everything else "No release rule holds.")
        # Not a table: an id, which `remove` needs as a whole, would leave no room for the patterns.
        for each in found:
            typer.echo(plain(each.id))
            typer.echo(plain(f"    {each.state}, for {each}: {counted(each.models, 'model')}"))
            typer.echo(plain(f"    set by {each.created_by} at {each.created_at}: {each.reason}"))


@app.command(epilog=EXITS)
def remove(
    which: Annotated[str, typer.Argument(metavar="RULE", help="Its id.")],
    url: Url = None,
    token: Token = None,
) -> None:
    """Revoke a rule. What it has released is kept again, unless its files are being deleted already."""
    with exit_statuses():
        try:
            wanted = str(UUID(text(which, "The id")))
        except ValueError as exc:
            message = f"{which!r} is not an id. `tariff-registry gc release-rule list` shows the ids."
            raise ArgumentError(message) from exc
        with client_of(url, token) as client:
            removed = read(client.delete(path("gc", "release-rules", wanted)), ReleaseRule.of)
        say(
            f"The rule for {removed} is revoked. What it had released is kept again, unless its files are "
            "being deleted already."
        )
