"""`tariff-registry sign`: has the registry sign a model that has no signature."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

import typer
from rich.text import Text

from cli.answers import Run, read
from cli.arguments import model_prefix
from cli.client import path
from cli.output import plain
from cli.runs import follow_run
from cli.shell import Exit, Token, Url, client_of, console, exit_statuses


@dataclass(frozen=True)
class Signing:
    """The run that signs a model. There is none for a model that is signed already, with `key`."""

    prefix: str
    key: str | None
    signed_at: str | None
    run: Run | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        signature, run = document["signature"], document["run"]
        return cls(
            str(document["prefix"]),
            None if signature is None else str(signature["key"]),
            None if signature is None else str(signature["signed_at"]),
            None if run is None else Run.of(run),
        )


def sign(
    prefix: Annotated[str, typer.Argument(help="The model, such as 0.0.2-aff1242.")],
    url: Url = None,
    token: Token = None,
    *,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")] = True,
) -> None:
    """Have the registry sign a model that was published without a signature, or imported."""
    with exit_statuses():
        where = path("models", model_prefix(prefix), "sign")
        with client_of(url, token) as client:
            # The registry signs a model once, however often it is asked.
            found = read(client.post(where, {}, repeatable=True), Signing.of)
            if found.run is None:
                said = f"{plain(found.prefix)} is signed since {plain(found.signed_at)}, with the key"
                console.print(Text(f"{said} {plain(found.key)}."), soft_wrap=True)
                return
            run = follow_run(client, found.run, console, wait=wait)
        if run.state in ("failed", "stopped"):
            raise typer.Exit(Exit.FAILED)
