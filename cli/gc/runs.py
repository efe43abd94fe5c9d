"""`tariff-registry gc run`, `status` and `stop`: carry garbage collection out, see how far it is, stop it."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from cli.answers import ApiError, Run, read
from cli.arguments import optional
from cli.builds.follow import PATIENCE_S
from cli.client import RegistryClient, path
from cli.output import lines, plain
from cli.shell import Exit, Token, Url, client_of, console, errors, exit_statuses, say

_POLL_S = 0.5

AsJson = Annotated[bool, typer.Option("--json", help="The API's answer, for scripts.")]

# What is counted, and in which field its bytes are.
_COUNTS = {
    "kept": "kept_bytes",
    "doomed": "doomed_bytes",
    "due": None,
    "marked": None,
    "restored": None,
    "postponed": None,
    "refused": None,
    "freed": "freed_bytes",
    "inputs_freed": "inputs_freed_bytes",
    "unpublished_freed": "unpublished_freed_bytes",
}


def run(
    url: Url = None,
    token: Token = None,
    plan_digest: Annotated[
        str | None,
        typer.Option(help="Refuse to run if other models may go than in the plan with this digest."),
    ] = None,
    *,
    really: Annotated[
        bool, typer.Option("--really/--dry-run", help="Mark and delete, or only show what would be done.")
    ] = False,
    allow_large: Annotated[
        bool, typer.Option("--allow-large", help="Allow that a large share of all models goes.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")] = True,
    as_json: AsJson = False,
) -> None:
    """Show what may be deleted or, with --really, mark it, and delete what was marked long enough ago."""
    with exit_statuses():
        body = {
            "dry_run": not really,
            "plan_digest": optional(plan_digest, "--plan-digest"),
            "allow_large": allow_large,
        }
        with client_of(url, token) as client:
            answer: Mapping[str, Any] = client.post("/gc/runs", body)
            if wait:
                answer = _followed(client, read(answer, Run.of))
        _end(answer, as_json=as_json)


def status(
    url: Url = None,
    token: Token = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show how the newest collection stands."""
    with exit_statuses():
        with client_of(url, token) as client:
            answer = _newest(client)
        _end(answer, as_json=as_json)


def stop(
    url: Url = None,
    token: Token = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Stop the collection that is under way. From then on, nothing more is deleted."""
    with exit_statuses():
        with client_of(url, token) as client:
            newest = read(_newest(client), Run.of)
            if newest.ended:
                say(f"No collection is under way. The newest one has ended: {plain(newest.state)}.")
                return
            answer = client.post(path("runs", newest.id, "stop"), {}, repeatable=True)
        _show(answer, as_json=as_json)


def _newest(client: RegistryClient) -> Mapping[str, Any]:
    """Raises ApiError if there was no collection yet."""
    page = client.get("/runs", kind="collection", limit="1")
    items = read(page, lambda document: list(document["items"]))
    if not items:
        message = "There was no collection yet. `tariff-registry gc run` asks for one."
        raise ApiError(message)
    answer: Mapping[str, Any] = client.get(path("runs", read(items[0], Run.of).id))
    return answer


def _followed(
    client: RegistryClient, run: Run, sleep: Callable[[float], object] = time.sleep
) -> Mapping[str, Any]:
    """Wait for the run's end, with a bar on stderr of how many models it has deleted. Raises ApiError."""
    say(f"The collection is run {plain(run.id)}. `tariff-registry gc stop` stops it.")
    client.patience_s = PATIENCE_S
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task("queued", total=None)
        while True:
            answer: Mapping[str, Any] = client.get(path("runs", run.id))
            run = read(answer, Run.of)
            if run.ended:
                return answer
            done, of = run.progress.get("freed"), run.progress.get("of")
            progress.update(
                task,
                description=plain(run.progress.get("phase", run.state)),
                completed=done if isinstance(done, int) else 0,
                total=of if isinstance(of, int) and of else None,
            )
            sleep(_POLL_S)


def _end(answer: Mapping[str, Any], *, as_json: bool) -> None:
    """Show the run. Raises typer.Exit if it did not come to its end."""
    _show(answer, as_json=as_json)
    if read(answer, Run.of).state in ("failed", "stopped"):
        raise typer.Exit(Exit.FAILED)


def _show(answer: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    run = read(answer, Run.of)
    by = f" by {plain(run.stopped_by)}" if run.stopped_by else ""
    what = "dry run" if run.result.get("dry_run") else "collection"
    console.print(Text(f"The {what} of {plain(run.created_at)}: {plain(run.state)}{by}"))
    if run.failure:
        console.print(Text(lines(run.failure), "red"), soft_wrap=True)
    if run.waits_for:
        console.print(Text(f"It waits: {plain(run.waits_for)}", "yellow"), soft_wrap=True)
    table = Table("", "count", "size")
    for name, size in _COUNTS.items():
        count, size_bytes = run.result.get(name), run.result.get(size) if size else None
        if isinstance(count, int):
            shown = decimal(size_bytes) if isinstance(size_bytes, int) else ""
            table.add_row(name.replace("_", " "), f"{count:,}", shown)
    if table.row_count:
        console.print(table)
    for title in ("marked_prefixes", "restored_prefixes", "refused_prefixes"):
        for item in run.result.get(title) or ():
            verb = title.partition("_")[0]
            console.print(
                Text(f"  {verb} {plain(item.get('prefix'))}: {plain(item.get('reason'))}"), soft_wrap=True
            )
    for prefix in run.result.get("freed_prefixes") or ():
        console.print(Text(f"  freed {plain(prefix)}"), soft_wrap=True)
    digest = run.result.get("plan_digest")
    if digest and run.result.get("dry_run"):
        command = f"tariff-registry gc run --really --plan-digest {plain(digest)}"
        console.print(Text(f"To carry it out: {command}"), soft_wrap=True)
