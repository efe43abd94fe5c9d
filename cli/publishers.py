"""`tariff-registry publisher`: the CI workflows that may sign in without a secret."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self
from uuid import UUID

import typer
from rich.table import Table
from rich.text import Text

from cli.answers import ApiError, read
from cli.arguments import text
from cli.client import RegistryClient, path
from cli.output import plain
from cli.shell import EXITS, Token, Url, client_of, console, exit_statuses, say
from cli.words import Scope

app = typer.Typer(
    no_args_is_help=True,
    help="Trust CI workflows, so that they can sign in without a secret. This needs the scope admin.",
)


@dataclass(frozen=True)
class Publisher:
    """A workflow that may sign in."""

    id: str
    name: str
    repository_id: str
    workflow: str
    runs_for: str
    scopes: tuple[str, ...]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        limits = [document["ref"], document["environment"] and f"environment {document['environment']}"]
        return cls(
            id=str(document["id"]),
            name=str(document["name"]),
            repository_id=str(document["repository_id"]),
            workflow=str(document["workflow"]),
            runs_for=", ".join(str(limit) for limit in limits if limit),
            scopes=tuple(map(str, document["scopes"])),
        )


@app.command(epilog=EXITS)
def add(
    name: Annotated[str, typer.Argument(help="What people call this rule.")],
    repository_id: Annotated[int, typer.Option(min=1, help="`gh api repos/OWNER/NAME --jq .id` prints it.")],
    owner_id: Annotated[int, typer.Option(min=1, help="`gh api repos/OWNER/NAME --jq .owner.id` prints it.")],
    workflow: Annotated[str, typer.Option(help="The name of the workflow's file, such as model.yml.")],
    scope: Annotated[
        list[Scope], typer.Option("--scope", help="What it may do. Repeat it for several scopes.")
    ],
    url: Url = None,
    token: Token = None,
    ref: Annotated[
        str | None,
        typer.Option(help="The ref that it runs for; * stands for anything: refs/pull/*/merge."),
    ] = None,
    environment: Annotated[str | None, typer.Option(help="The GitHub environment of the job.")] = None,
) -> None:
    """Let a workflow sign in. It gets tokens for 15 minutes; give it a ref, an environment, or both."""
    with exit_statuses():
        body = {
            "name": text(name, "The name"),
            "repository_id": repository_id,
            "repository_owner_id": owner_id,
            "workflow": text(workflow, "--workflow"),
            "ref": None if ref is None else text(ref, "--ref"),
            "environment": None if environment is None else text(environment, "--environment"),
            "scopes": [each.value for each in scope],
        }
        with client_of(url, token) as client:
            made = read(client.post("/trusted-publishers", body), Publisher.of)
        say(f"{made.workflow} may sign in for {made.runs_for}, and then {', '.join(made.scopes)}.")
        typer.echo(plain(made.id))


@app.command("list", epilog=EXITS)
def list_publishers(url: Url = None, token: Token = None) -> None:
    """Show the workflows that may sign in, newest first."""
    with exit_statuses():
        table = Table("id", "name", "repository", "workflow", "runs for", "scopes")
        with client_of(url, token) as client:
            for each in _all(client):
                cells = (
                    each.id,
                    each.name,
                    each.repository_id,
                    each.workflow,
                    each.runs_for,
                    ", ".join(each.scopes),
                )
                table.add_row(*(Text(plain(cell)) for cell in cells))
        console.print(table)


@app.command(epilog=EXITS)
def remove(
    which: Annotated[str, typer.Argument(metavar="PUBLISHER", help="Its id.")],
    url: Url = None,
    token: Token = None,
) -> None:
    """Trust a workflow no longer. Tokens that it has got already end within 15 minutes."""
    with exit_statuses():
        try:
            wanted = str(UUID(text(which, "The id")))
        except ValueError as exc:
            message = f"{which!r} is not an id. `tariff-registry publisher list` shows the ids."
            raise ApiError(message) from exc
        with client_of(url, token) as client:
            removed = read(client.delete(path("trusted-publishers", wanted)), Publisher.of)
        say(f"{removed.name} cannot sign in any more.")


def _all(client: RegistryClient) -> list[Publisher]:
    answer = client.listed("/trusted-publishers")
    return read(answer, lambda page: list(map(Publisher.of, page["items"])))
