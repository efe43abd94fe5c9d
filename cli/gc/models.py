"""What people decide about single models: to restore, pin, unpin or release one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

import typer
from rich.text import Text

from cli.answers import read
from cli.arguments import model_prefix, text
from cli.client import path
from cli.output import plain
from cli.shell import Token, Url, client_of, console, exit_statuses

PrefixArgument = Annotated[str, typer.Argument(help="The model, such as 0.0.2-aff1242.")]


@dataclass(frozen=True)
class KeptModel:
    """A model, and who has pinned and released it."""

    prefix: str
    state: str
    pinned_by: str | None
    released_by: str | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        pin, release = document["pin"], document["release"]
        return cls(
            str(document["prefix"]),
            str(document["state"]),
            None if pin is None else str(pin["by"]),
            None if release is None else str(release["by"]),
        )


def restore(prefix: PrefixArgument, url: Url = None, token: Token = None) -> None:
    """Keep a model that is marked. This needs the scope collect."""
    with exit_statuses(), client_of(url, token) as client:
        where = path("models", model_prefix(prefix), "restore")
        _show(read(client.post(where, {}, repeatable=True), KeptModel.of))


def pin(
    prefix: PrefixArgument,
    note: Annotated[str, typer.Option(help="What the model is kept for.")],
    url: Url = None,
    token: Token = None,
) -> None:
    """Keep a model, whatever the policy says. This needs the scope collect."""
    with exit_statuses(), client_of(url, token) as client:
        where = path("models", model_prefix(prefix), "pin")
        body = {"note": text(note, "--note")}
        _show(read(client.post(where, body, repeatable=True), KeptModel.of))


def unpin(prefix: PrefixArgument, url: Url = None, token: Token = None) -> None:
    """Let the policy decide about a model again. This needs the scope collect."""
    with exit_statuses(), client_of(url, token) as client:
        _show(read(client.delete(path("models", model_prefix(prefix), "pin")), KeptModel.of))


def release(
    prefix: PrefixArgument,
    reason: Annotated[
        str | None, typer.Option(help="Why it may be deleted, although it was in staging or production.")
    ] = None,
    url: Url = None,
    token: Token = None,
    *,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take the release back.")] = False,
) -> None:
    """Allow a model to be deleted that was in staging or production. This needs the scope admin."""
    with exit_statuses(), client_of(url, token) as client:
        where = path("models", model_prefix(prefix), "release")
        if withdraw:
            answer = client.delete(where)
        else:
            body = {"reason": text(reason or "", "--reason")}
            answer = client.post(where, body, repeatable=True)
        _show(read(answer, KeptModel.of))


def _show(model: KeptModel) -> None:
    said = [f"{model.prefix} is {model.state}"]
    said += [f"pinned by {model.pinned_by}"] if model.pinned_by is not None else []
    said += [f"released by {model.released_by}"] if model.released_by is not None else []
    console.print(Text(plain(f"{', '.join(said)}.")), soft_wrap=True)
