"""`tariff-registry`: run the service, ask for builds, and see or record what runs where."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cli import images, notifications, publishers, tokens
from cli.answers import Build, Latest, Promotion, Run, Stages, read
from cli.arguments import ArgumentError, model_prefix, optional, text
from cli.builds.cancel import cancel_build
from cli.builds.checkout import THRESHOLDS, Checkout, thresholds_in
from cli.builds.follow import build_id_of, follow_to_end
from cli.builds.request import request_build
from cli.builds.retry import retry_build
from cli.ci import commands as ci
from cli.client import path
from cli.compare import Comparison, show_comparison
from cli.gc import command as gc
from cli.lineage.graph import lineage
from cli.lineage.uses import inputs
from cli.output import show_latest, show_promotion, show_stages
from cli.reproduction import reproduce
from cli.runs import run_to_end, show_run, show_runs
from cli.serve import MissingExtra, become
from cli.shell import EXITS, Exit, Token, Url, client_of, console, exit_statuses, fail, say
from cli.verification.command import verify
from cli.verification.signing import sign
from cli.words import Stage

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The tariff model registry.",
    epilog=EXITS,
    add_completion=False,
)
app.add_typer(tokens.app, name="token")
app.add_typer(gc.app, name="gc")
app.add_typer(publishers.app, name="publisher")
app.add_typer(ci.app, name="ci")
app.add_typer(notifications.app, name="notification")
app.add_typer(images.app, name="image")
app.command(epilog=EXITS)(verify)
app.command(epilog=EXITS)(reproduce)
app.command(epilog=EXITS)(sign)
app.command(epilog=EXITS)(lineage)
app.command(epilog=EXITS)(inputs)

BuildArgument = Annotated[
    str, typer.Argument(metavar="BUILD", help="A build's id, or a prefix, which means its newest build.")
]
Log = Annotated[bool, typer.Option("--log/--no-log", help="Show the lines of the build's log, too.")]
StageArgument = Annotated[Stage, typer.Argument(help="development, staging or production")]


def _serve(module: str, *arguments: str, extras: tuple[str, ...]) -> NoReturn:
    try:
        become(module, *arguments, extras=extras)
    except MissingExtra as exc:
        raise fail(Exit.USAGE, str(exc)) from exc


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
    _serve("worker", extras=("service", "worker"))


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
    _serve("local", *folder, "--port", str(port), extras=("service", "worker", "training", "local"))


@app.command(epilog=EXITS)
def build(
    url: Url = None,
    token: Token = None,
    branch: Annotated[
        str | None,
        typer.Option(help="Branch to record, where git does not know it. \\[env var: REGISTRY_BRANCH]"),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Revision of the base branch, such as origin/main. A model is built only if the version in "
            "the search-config.toml there is lower."
        ),
    ] = None,
    promote_to: Annotated[Stage | None, typer.Option(help="Promote the model when it is published.")] = None,
    thresholds: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="File of thresholds that decides whether the model passes. By default, it is "
            f"{THRESHOLDS} of the commit, if there is one.",
        ),
    ] = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Build even if the version is not higher.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show whether a model is needed. Nothing is built.")
    ] = False,
    allow_unchanged_version: Annotated[
        bool,
        typer.Option(
            "--allow-unchanged-version",
            help="Succeed even if values differ from those of --base and the version is not higher.",
        ),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the build to its end.")] = True,
    log: Log = True,
) -> None:
    """Ask for the model of the commit that this git checkout is at, and follow its build."""
    with exit_statuses():
        base = optional(base, "--base")
        checkout = Checkout.at(Path.cwd(), optional(branch, "--branch", "REGISTRY_BRANCH"))
        named = optional(thresholds, "--thresholds")
        sent = checkout.thresholds() if named is None else thresholds_in(Path(named))
        base_config = checkout.config_of_base(base) if base is not None else None
        if checkout.branch == "HEAD":
            say("git does not know the branch of this checkout, so HEAD is recorded. Name it with --branch.")
        if checkout.changed:
            say("The checkout has changes that are not committed. They are not part of the build.")
        with client_of(url, token) as client:
            asked = request_build(
                client,
                checkout,
                console,
                base_config=base_config,
                thresholds=sent,
                promote_to=promote_to,
                force=force,
                dry_run=dry_run,
                allow_unchanged_version=allow_unchanged_version,
                wait=wait,
                log=log,
                note=say,
            )
        if asked.failed:
            raise typer.Exit(Exit.FAILED)


@app.command(epilog=EXITS)
def follow(
    which: BuildArgument,
    url: Url = None,
    token: Token = None,
    *,
    log: Log = True,
) -> None:
    """Show what happens to a build until it has ended: its steps, notes, progress and log.

    Lost connections are resumed. Ctrl-C ends only this command, and the build goes on.
    """
    with exit_statuses():
        with client_of(url, token) as client:
            build = read(client.get(path("builds", build_id_of(client, which))), Build.of)
            build = follow_to_end(client, build, console, log=log)
        if build.state != "succeeded":
            raise typer.Exit(Exit.FAILED)


@app.command(epilog=EXITS)
def cancel(
    which: BuildArgument,
    url: Url = None,
    token: Token = None,
    *,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the build has ended.")] = True,
) -> None:
    """Cancel a build: its instance is terminated, and its log is kept."""
    with exit_statuses():
        with client_of(url, token) as client:
            build = cancel_build(client, which, console, wait=wait)
        if build.ended and build.state != "cancelled":
            raise typer.Exit(Exit.FAILED)


@app.command(epilog=EXITS)
def retry(
    which: BuildArgument,
    url: Url = None,
    token: Token = None,
    *,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the build to its end.")] = True,
    log: Log = True,
) -> None:
    """Build a commit again whose build failed or was cancelled, and follow the new build.

    What the earlier build has collected is published without another training, if it is still there.
    Otherwise the new build trains with the same inputs.
    """
    with exit_statuses():
        with client_of(url, token) as client:
            build = retry_build(client, which, console, wait=wait, log=log)
        if build.ended and build.state != "succeeded":
            raise typer.Exit(Exit.FAILED)


@app.command(epilog=EXITS)
def latest(
    stage: StageArgument,
    url: Url = None,
    token: Token = None,
    version: Annotated[str | None, typer.Option(help="Only models of this version.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The API's answer, for scripts.")] = False,
) -> None:
    """Show the model that a stage runs."""
    with exit_statuses():
        version = optional(version, "--version")
        with client_of(url, token) as client:
            answer = client.get(path("models", stage.value, "latest"), version=version)
        found = read(answer, Latest.of)
        if as_json:
            typer.echo(json.dumps(answer, indent=2))
        else:
            show_latest(console, stage.value, found)


@app.command(epilog=EXITS)
def promote(
    prefix: Annotated[str, typer.Argument(help="The model, such as 0.0.2-aff1242.")],
    stage: StageArgument,
    url: Url = None,
    token: Token = None,
    note: Annotated[str | None, typer.Option(help="Why. An override needs it.")] = None,
    *,
    override: Annotated[bool, typer.Option("--override", help="Go through a closed gate.")] = False,
    expected: Annotated[
        str | None, typer.Option(help="Promote only if the stage runs this model until now.")
    ] = None,
) -> None:
    """Record that a model now runs in a stage."""
    with exit_statuses():
        body: dict[str, object] = {
            "stage": stage.value,
            "note": optional(note, "--note"),
            "override": override,
        }
        if expected is not None:
            body["expected"] = model_prefix(expected, "--expected")
        where = path("models", model_prefix(prefix), "promotions")
        with client_of(url, token) as client:
            promotion = read(client.post(where, body), Promotion.of)
        show_promotion(console, promotion)


@app.command(epilog=EXITS)
def compare(
    prefix: Annotated[str, typer.Argument(help="The model, such as 0.0.2-aff1242.")],
    other: Annotated[str, typer.Argument(help="The model to compare it with.")],
    benchmark: Annotated[str | None, typer.Option(help="Only this benchmark.")] = None,
    limit: Annotated[int, typer.Option(min=0, max=200, help="So many descriptions in each list.")] = 5,
    url: Url = None,
    token: Token = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The API's answer, for scripts.")] = False,
) -> None:
    """Show which of two models answers better, at which descriptions, and what they were made from."""
    with exit_statuses():
        where = path("models", model_prefix(prefix), "compare", model_prefix(other, "The other prefix"))
        with client_of(url, token) as client:
            answer = client.get(where, benchmark=optional(benchmark, "--benchmark"), limit=str(limit))
        found = read(answer, Comparison.of)
        if as_json:
            typer.echo(json.dumps(answer, indent=2))
        else:
            show_comparison(console, found)


@app.command(epilog=EXITS)
def stages(
    url: Url = None,
    token: Token = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The API's answer, for scripts.")] = False,
) -> None:
    """Show what runs where, since when, and who promoted it."""
    with exit_statuses():
        with client_of(url, token) as client:
            answer = client.get("/stages")
        found = read(answer, Stages.of)
        if as_json:
            typer.echo(json.dumps(answer, indent=2))
        else:
            show_stages(console, found)


@app.command(epilog=EXITS)
def rollback(
    stage: StageArgument,
    expected: Annotated[
        str,
        typer.Option(help="The model that the stage runs and that is to be replaced, such as 0.0.2-aff1242."),
    ],
    note: Annotated[str, typer.Option(help="Why.")],
    to: Annotated[
        str | None,
        typer.Option(help="The model to go back to. Without it: the one that ran there before."),
    ] = None,
    url: Url = None,
    token: Token = None,
    *,
    override: Annotated[
        bool, typer.Option("--override", help="Go back although files are missing, or S3 cannot be asked.")
    ] = False,
) -> None:
    """Go back to a model that ran in the stage before."""
    with exit_statuses():
        body: dict[str, object] = {
            "expected": model_prefix(expected, "--expected"),
            "note": text(note, "--note"),
            "override": override,
        }
        if to is not None:
            body["to"] = model_prefix(to, "--to")
        with client_of(url, token) as client:
            promotion = read(client.post(path("stages", stage.value, "rollback"), body), Promotion.of)
        show_promotion(console, promotion)


Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")]


@app.command("import", epilog=EXITS)
def import_models(
    url: Url = None,
    token: Token = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be imported.")] = False,
    digests: Annotated[
        bool, typer.Option("--digests/--no-digests", help="Also compute the files' digests, or later.")
    ] = True,
    wait: Wait = True,
) -> None:
    """Import the models of a bucket that was filled before this registry existed."""
    _run(url, token, "/imports", {"dry_run": dry_run, "digests": digests}, wait=wait)


@app.command(epilog=EXITS)
def reconcile(
    url: Url = None,
    token: Token = None,
    *,
    apply: Annotated[bool, typer.Option("--apply", help="Repair what can be repaired without harm.")] = False,
    model_zip: Annotated[
        bool,
        typer.Option(
            "--model-zip",
            help="With --apply, also write a missing or different model.zip again. Existing tools then take "
            "it for the newest of its version.",
        ),
    ] = False,
    delete_strays: Annotated[
        list[str] | None,
        typer.Option(
            "--delete-strays",
            metavar="PREFIX",
            help="Delete everything under this prefix, of which the registry has no model. It can be given "
            "several times.",
        ),
    ] = None,
    wait: Wait = True,
) -> None:
    """Show how the bucket differs from what the registry has recorded."""
    options: dict[str, bool | list[str]] = {"apply": apply, "model_zip": model_zip}
    if delete_strays:
        options["delete_strays"] = delete_strays
    _run(url, token, "/mirror/reconcile", options, wait=wait)


def _run(
    url: str | None, token: str | None, where: str, options: Mapping[str, bool | list[str]], *, wait: bool
) -> None:
    with exit_statuses():
        with client_of(url, token) as client:
            run = run_to_end(client, where, options, console, wait=wait)
        if run.state in ("failed", "stopped"):
            raise typer.Exit(Exit.FAILED)


@app.command(epilog=EXITS)
def runs(
    run_id: Annotated[
        str | None, typer.Argument(help="The run to show. Without it, the newest runs are listed.")
    ] = None,
    url: Url = None,
    token: Token = None,
    *,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the run.")] = False,
) -> None:
    """Show imports, reconciliations and collections, or stop one."""
    with exit_statuses():
        found = optional(run_id, "The run's id")
        if stop and found is None:
            message = "--stop needs the id of a run. `tariff-registry runs` lists the runs."
            raise ArgumentError(message)
        with client_of(url, token) as client:
            if found is None:
                items = read(client.get("/runs"), lambda page: [Run.of(item) for item in page["items"]])
                show_runs(console, items)
                return
            if stop:
                shown = client.post(path("runs", found, "stop"), {}, repeatable=True)
            else:
                shown = client.get(path("runs", found))
        show_run(console, read(shown, Run.of))
