"""Follow a build to its end: for the commands that ask for one, and for those who come later."""

import time
from collections.abc import Callable
from uuid import UUID

from rich.console import Console
from rich.text import Text

from cli.answers import ApiError, Build, Model, read
from cli.arguments import ArgumentError, model_prefix, text
from cli.builds.display import Display
from cli.builds.happenings import Happenings
from cli.client import RegistryClient, path
from cli.output import lines, plain, show_metrics

_LOG_TAIL = 30
# A registry that is being deployed is away for a while, and its builds go on.
PATIENCE_S = 300.0


class LostContact(ApiError):
    """The registry stopped answering while a build was followed. The message says how to go on."""


class Interrupted(KeyboardInterrupt):
    """Somebody pressed Ctrl-C while a build was followed. The message says how to go on."""


def build_id_of(client: RegistryClient, which: str) -> str:
    """The build with this id, or the newest one of this prefix. Raises ApiError, ArgumentError."""
    which = text(which, "The build")
    try:
        return str(UUID(which))
    except ValueError:
        prefix = model_prefix(which)
    found = client.get("/builds", prefix=prefix, limit="1")["items"]
    if not found:
        message = f"There is no build of {plain(prefix)}. Give the id of a build, or the prefix of one."
        raise ArgumentError(message)
    return str(found[0]["id"])


def follow_to_end(
    client: RegistryClient,
    build: Build,
    console: Console,
    *,
    log: bool = True,
    sleep: Callable[[float], object] = time.sleep,
) -> Build:
    """Show what happens to the build until it has ended, and then what became of it.

    Returns the build as it is then. Raises ApiError, LostContact, Interrupted.
    """
    try:
        ended = follow(client, build.id, console, log=log, sleep=sleep)
    except KeyboardInterrupt as exc:
        raise Interrupted(_how_to_go_on(f"Interrupted. The build {build.id} goes on.", build.id)) from exc
    if ended.state == "succeeded" and ended.reproduces:
        show_outcome(ended, console)
    elif ended.state == "succeeded":
        show_model(client, ended.prefix, console)
    elif ended.state == "failed":
        show_failure(client, ended, console, log_tail=not log)
    else:
        what = Text.assemble("Build ", plain(ended.id), " of ", (plain(ended.prefix), "bold"), " is ")
        console.print(what + Text(f"{plain(ended.state)}."), soft_wrap=True)
    return ended


def follow(
    client: RegistryClient,
    build_id: str,
    console: Console,
    *,
    log: bool = False,
    sleep: Callable[[float], object] = time.sleep,
) -> Build:
    """Show what happens to the build, and return it as it is at its end. Raises ApiError, LostContact."""
    client.patience_s = PATIENCE_S

    def note(message: str) -> None:
        console.print(Text(lines(message), "dim"), soft_wrap=True)

    try:
        with Display(console, log=log) as display:
            for happening in Happenings(client, build_id, log=log, note=note, sleep=sleep):
                display.show(happening)
        return read(client.get(path("builds", build_id)), Build.of)
    except ApiError as exc:
        if not exc.passes:
            raise
        lost = f"The registry has not answered for {PATIENCE_S:.0f} s, and the build {build_id} may go on."
        raise LostContact(f"{exc} {_how_to_go_on(lost, build_id)}", exc.status, passes=True) from exc


def _how_to_go_on(what: str, build_id: str) -> str:
    return (
        f"{what} Follow it with `tariff-registry follow {build_id}`, "
        f"or cancel it with `tariff-registry cancel {build_id}`."
    )


def show_model(client: RegistryClient, prefix: str, console: Console) -> None:
    """The figures and the verdict of what a build has published."""
    try:
        model = read(client.get(path("models", prefix)), Model.of)
    except ApiError as exc:
        # The build succeeded, whether or not its figures can be had.
        console.print(Text(f"Published {plain(prefix)}. Its figures cannot be shown. {plain(exc)}"))
        return
    show_metrics(console, model.metrics)
    verdict = f". Verdict: {plain(model.verdict)} ({plain(model.verdict_reason)})"
    console.print(Text.assemble("Published ", (plain(prefix), "bold"), verdict), soft_wrap=True)
    for warning in model.warnings:
        console.print(Text(f"Warning: {lines(warning)}", "yellow"), soft_wrap=True)


def show_outcome(build: Build, console: Console) -> None:
    """How a model that was made again compares with the original."""
    same = f" ({plain(build.outcome['same_bytes'])})" if build.outcome.get("same_bytes") else ""
    console.print(
        Text.assemble((plain(build.prefix), "bold"), f" was made again: {plain(build.verdict)}{same}")
    )
    largest = build.outcome.get("largest_difference")
    if isinstance(largest, int | float) and largest > 0:
        console.print(Text(f"  The largest difference of a weight is {largest:g}."))
    for finding in build.outcome.get("findings") or ():
        console.print(Text(f"  {plain(finding)}"), soft_wrap=True)
    for name in build.outcome.get("repaired") or ():
        console.print(Text(f"  {plain(name)} was put back."), soft_wrap=True)
    for one in build.outcome.get("not_repaired") or ():
        console.print(
            Text(f"  {plain(one.get('name'))} was not put back: {plain(one.get('reason'))}."), soft_wrap=True
        )


def show_failure(client: RegistryClient, build: Build, console: Console, *, log_tail: bool = True) -> None:
    """Why a build failed and, unless its log was shown already, the end of its log."""
    failure = build.failure
    what = f"Build {plain(build.id)} of {plain(build.prefix)} failed in {plain(failure.get('step'))}"
    console.print(Text.assemble((what, "red"), f" ({plain(failure.get('code'))})"), soft_wrap=True)
    console.print(Text(lines(failure.get("message", ""))), soft_wrap=True)
    if log_tail:
        _show_end_of_log(client, build, console)
    if build.retry_with is not None:
        console.print(Text(lines(_how_to_retry(build))), soft_wrap=True)


def _how_to_retry(build: Build) -> str:
    command = f"`tariff-registry retry {build.id}`"
    if build.failure.get("retry_helps") is False:
        return (
            f"Once the cause is removed, {command} builds it again with the same inputs. If the cause was in "
            "the inputs, ask for a new build instead, which reads the bucket's root."
        )
    return f"{command} builds it again. It takes over what is still there, so it may need no other training."


def _show_end_of_log(client: RegistryClient, build: Build, console: Console) -> None:
    try:
        log = client.end_of_log(path("builds", build.id, "log")).splitlines()
    except ApiError as exc:
        # The build failed, whether or not its log can be had.
        console.print(Text(f"Its log cannot be shown. {plain(exc)}"))
        return
    where = f"The last lines of its log (GET /builds/{plain(build.id)}/log has all of it):"
    console.print(Text(where, "dim"), soft_wrap=True)
    for line in log[-_LOG_TAIL:]:
        console.print(Text(f"  {plain(line)}"), soft_wrap=True)
