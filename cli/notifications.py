"""`tariff-registry notification`: what the webhook and Slack were told, and a test message."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

import typer
from rich.table import Table
from rich.text import Text

from cli.answers import read
from cli.client import RegistryClient
from cli.output import lines, plain
from cli.shell import EXITS, Exit, Token, Url, client_of, console, exit_statuses, fail, say

app = typer.Typer(
    no_args_is_help=True,
    help="Test the webhook and Slack, and see what they were told. This needs the scope admin.",
)

_POLL_S = 0.5
_PATIENCE_S = 60.0
# The API gives at most so many at once.
_MOST = 200


@dataclass(frozen=True)
class Notification:
    """One message to one target."""

    created_at: str
    target: str
    kind: str
    subject: str
    state: str
    attempts: int
    error: str | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        error = document.get("error")
        return cls(
            created_at=str(document["created_at"]),
            target=str(document["target"]),
            kind=str(document["kind"]),
            subject=str(document["subject"]),
            state=str(document["state"]),
            attempts=int(document["attempts"]),
            error=None if error is None else str(error),
        )

    @property
    def settled(self) -> bool:
        """Whether the first attempt is over."""
        return self.state != "pending" or self.error is not None


@app.command("test", epilog=EXITS)
def send_test(url: Url = None, token: Token = None) -> None:
    """Have a test message sent to every target, and show what became of it."""
    with exit_statuses():
        with client_of(url, token) as client:
            message = read(client.post("/notifications/test", {}), lambda document: str(document["message"]))
            found = _settled(client, message)
        if not found:
            raise fail(
                Exit.FAILED,
                "No worker has anywhere to send messages to. Set REGISTRY_WEBHOOK_URL and "
                "REGISTRY_WEBHOOK_SECRET, or REGISTRY_SLACK_WEBHOOK_URL, for the workers.",
            )
        for each in found:
            if each.state == "sent":
                console.print(Text(f"{plain(each.target)}: sent"))
            else:
                reason = each.error or "no worker has tried yet. Is one running?"
                console.print(Text(f"{plain(each.target)}: not sent: {lines(reason)}", "red"), soft_wrap=True)
        if any(each.state != "sent" for each in found):
            raise fail(Exit.FAILED, "Not every target has the message.")


def _settled(client: RegistryClient, message: str) -> list[Notification]:
    """What became of a message, once every target has been tried, or the patience is over."""
    ends = time.monotonic() + _PATIENCE_S
    while True:
        found = _listed(client, message=message)
        if all(each.settled for each in found) or time.monotonic() > ends:
            return found
        time.sleep(_POLL_S)


@app.command("list", epilog=EXITS)
def list_notifications(
    url: Url = None,
    token: Token = None,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that were given up.")] = False,
) -> None:
    """Show the newest notifications."""
    with exit_statuses():
        table = Table("at", "target", "kind", "about", "state", "attempts", "error")
        with client_of(url, token) as client:
            found = _listed(client, state="failed" if failed else None)
        for each in found:
            cells = (
                each.created_at,
                each.target,
                each.kind,
                each.subject,
                each.state,
                str(each.attempts),
                each.error or "",
            )
            table.add_row(*(Text(plain(cell)) for cell in cells))
        console.print(table)
        if len(found) == _MOST:
            say(f"These are the newest {_MOST}. GET /notifications has the others.")


def _listed(client: RegistryClient, **filters: str | None) -> list[Notification]:
    return read(
        client.get("/notifications", limit=_MOST, **filters),
        lambda page: [Notification.of(item) for item in page["items"]],
    )
