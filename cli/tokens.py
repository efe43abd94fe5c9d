"""`tariff-registry token`: create, list and revoke the tokens that callers send."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.table import Table
from rich.text import Text

from cli.answers import ApiError, IssuedToken, read
from cli.arguments import text
from cli.client import RegistryClient, path
from cli.output import plain
from cli.shell import EXITS, Token, Url, client_of, console, exit_statuses, say
from cli.words import Scope

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke tokens. This needs the scope admin.")


@app.command(epilog=EXITS)
def create(
    name: Annotated[str, typer.Argument(help="Under this name, what is done with the token is recorded.")],
    scope: Annotated[
        list[Scope], typer.Option("--scope", help="What the token may do. Repeat it for several scopes.")
    ],
    url: Url = None,
    token: Token = None,
    expires_in_days: Annotated[
        int, typer.Option(min=1, max=365, help="For how many days the token is accepted.")
    ] = 90,
) -> None:
    """Create a token. Only the token itself is printed on stdout; it is shown this once."""
    with exit_statuses():
        body = {
            "name": text(name, "The name"),
            "scopes": [each.value for each in scope],
            "expires_in_days": expires_in_days,
        }
        with client_of(url, token) as client:
            made, secret = read(client.post("/tokens", body), _created)
        say(
            f"{made.name} may {', '.join(made.scopes)} until {made.expires_at}. The token is shown only this "
            f"once. `tariff-registry token revoke {made.name}` revokes it."
        )
        typer.echo(plain(secret))


def _created(document: Mapping[str, Any]) -> tuple[IssuedToken, str]:
    return IssuedToken.of(document), str(document["token"])


@app.command("list", epilog=EXITS)
def list_tokens(
    url: Url = None,
    token: Token = None,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also those that were revoked or have expired.")
    ] = False,
) -> None:
    """Show the tokens that are active, newest first."""
    with exit_statuses():
        table = Table("id", "name", "state", "scopes", "expires", "last used", "starts with")
        with client_of(url, token) as client:
            for each in _all(client, state=None if everything else "active"):
                cells = (
                    each.id,
                    each.name,
                    each.state,
                    ", ".join(each.scopes),
                    each.expires_at,
                    each.last_used_at or "never",
                    each.starts_with,
                )
                table.add_row(*(Text(plain(cell)) for cell in cells))
        console.print(table)


@app.command(epilog=EXITS)
def revoke(
    which: Annotated[
        str, typer.Argument(metavar="TOKEN", help="A token's id, or the name of an active token.")
    ],
    url: Url = None,
    token: Token = None,
) -> None:
    """Revoke a token. It is refused everywhere after 5 seconds at most."""
    with exit_statuses():
        wanted = text(which, "The token")
        with client_of(url, token) as client:
            revoked = read(client.delete(path("tokens", _id_of(client, wanted))), IssuedToken.of)
        say(f"{revoked.name} is revoked.")


def _id_of(client: RegistryClient, wanted: str) -> str:
    try:
        return str(UUID(wanted))
    except ValueError:
        found = _all(client, state="active", name=wanted)
    if len(found) != 1:
        message = (
            f"{len(found)} active tokens have the name {wanted!r}. "
            "`tariff-registry token list` shows the tokens with their ids."
        )
        raise ApiError(message)
    return found[0].id


def _all(client: RegistryClient, **filters: str | None) -> list[IssuedToken]:
    return read(client.listed("/tokens", **filters), lambda page: list(map(IssuedToken.of, page["items"])))
