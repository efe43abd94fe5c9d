"""`tariff-registry`: run the service, ask for builds, see and say what runs where."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from cli.checkout import Checkout, CheckoutError, config_at
from cli.client import DEFAULT_URL, ApiError, RegistryClient
from cli.output import show_latest
from cli.request import request_build
from cli.serve import MissingExtra, become
from cli.words import Stage

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The tariff model registry.",
    add_completion=False,
)
console = Console()
errors = Console(stderr=True)

Url = Annotated[str, typer.Option("--url", envvar="REGISTRY_URL", help="Where the registry's API is.")]
Token = Annotated[
    str | None,
    typer.Option("--token", envvar="REGISTRY_TOKEN", help="Token, where the registry asks for one."),
]


class Exit(StrEnum):
    """What a script can tell from the exit status."""

    FAILED = "1: the build failed"
    USAGE = "2: something about the call or the checkout is wrong"
    REFUSED = "3: the registry refused, or cannot be reached"

    @property
    def status(self) -> int:
        return int(self.value.partition(":")[0])


def _fail(kind: Exit, text: str) -> typer.Exit:
    errors.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(kind.status)


def _serve(module: str, *arguments: str, extras: tuple[str, ...]) -> NoReturn:
    try:
        become(module, *arguments, extras=extras)
    except MissingExtra as exc:
        raise _fail(Exit.USAGE, str(exc)) from exc


@app.command()
def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
) -> None:
    """Serve the API."""
    _serve("app", "api", "--host", host, "--port", str(port), extras=("service",))


@app.command()
def worker() -> None:
    """Carry builds, mirror stages and clean up after lost builds. Run as many workers as you like."""
    _serve("worker", extras=("service",))


@app.command()
def migrate(
    revision: Annotated[str, typer.Argument(help="The revision to go to.")] = "head",
    *,
    down: Annotated[bool, typer.Option("--down", help="Downgrade to the revision.")] = False,
) -> None:
    """Bring the database's schema to a revision, the newest by default."""
    _serve("app", "migrate", *(["--down"] if down else []), "--", revision, extras=("service",))


@app.command()
def up(
    state: Annotated[Path | None, typer.Option(help="Folder that keeps the database and the bucket.")] = None,
    port: Annotated[
        int, typer.Option(help="The API's port. When it is in use, another one is taken.")
    ] = 8000,
) -> None:
    """Run everything on this machine: Postgres, a simulated AWS, the API and a worker, until Ctrl-C."""
    folder = [] if state is None else ["--state", str(state)]
    _serve("local", *folder, "--port", str(port), extras=("service", "training", "local"))


@app.command()
def build(
    url: Url = DEFAULT_URL,
    token: Token = None,
    branch: Annotated[
        str | None,
        typer.Option(envvar="REGISTRY_BRANCH", help="Branch to record, where git does not know it."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Revision of the base branch, such as origin/main: no build unless the version has risen."
        ),
    ] = None,
    promote_to: Annotated[Stage | None, typer.Option(help="Promote the model when it is published.")] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Build although the version has not risen.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the build to its end.")] = True,
) -> None:
    """Ask for the model of the commit that this git checkout is at, and follow its build.

    Exit status 0 when the model is there or none is needed, 1 when the build failed.
    """
    try:
        checkout = Checkout.at(Path.cwd(), branch)
        base_config = config_at(checkout.folder, base) if base is not None else None
    except CheckoutError as exc:
        raise _fail(Exit.USAGE, str(exc)) from exc
    if checkout.changed:
        errors.print("[yellow]Uncommitted changes are not part of the build.[/]")
    try:
        with RegistryClient(url, token) as client:
            state = request_build(
                client,
                checkout,
                console,
                base_config=base_config,
                promote_to=promote_to,
                force=force,
                wait=wait,
            )
    except ApiError as exc:
        raise _fail(Exit.REFUSED, str(exc)) from exc
    if state in ("failed", "cancelled"):
        raise typer.Exit(Exit.FAILED.status)


@app.command()
def latest(
    stage: Annotated[Stage, typer.Argument(help="development, staging or production")],
    url: Url = DEFAULT_URL,
    token: Token = None,
    version: Annotated[str | None, typer.Option(help="Only models of this version.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The API's answer, for scripts.")] = False,
) -> None:
    """Show the model that a stage runs."""
    try:
        with RegistryClient(url, token) as client:
            found = client.get(f"/models/{stage.value}/latest", version=version)
    except ApiError as exc:
        raise _fail(Exit.REFUSED, str(exc)) from exc
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        show_latest(console, stage.value, found)


@app.command()
def promote(
    prefix: Annotated[str, typer.Argument(help="The model, such as 0.0.2-aff1242.")],
    stage: Annotated[Stage, typer.Argument(help="development, staging or production")],
    url: Url = DEFAULT_URL,
    token: Token = None,
    note: Annotated[str | None, typer.Option(help="Why; needed for an override.")] = None,
    *,
    override: Annotated[bool, typer.Option("--override", help="Go through a closed gate.")] = False,
) -> None:
    """Record that a model now runs in a stage."""
    try:
        with RegistryClient(url, token) as client:
            body = {"stage": stage.value, "note": note, "override": override}
            promotion = client.post(f"/models/{prefix}/promotions", body)
    except ApiError as exc:
        raise _fail(Exit.REFUSED, str(exc)) from exc
    console.print(
        f"[bold]{promotion['prefix']}[/] runs in {promotion['stage']} since {promotion['promoted_at']}, "
        f"by {promotion['promoted_by']}",
        highlight=False,
    )
