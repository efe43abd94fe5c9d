"""Retry a build that failed or was cancelled, and follow the new one."""

from rich.console import Console
from rich.text import Text

from cli.answers import Build, read
from cli.builds.follow import build_id_of, follow_to_end
from cli.client import RegistryClient, path
from cli.output import plain


def retry_build(
    client: RegistryClient, which: str, console: Console, *, wait: bool = True, log: bool = True
) -> Build:
    """Retry the build with this id, or the newest one of this prefix. Returns the new build.

    `log`: show the lines of its log, too. Raises ApiError, ArgumentError, LostContact, Interrupted.
    """
    earlier = build_id_of(client, which)
    # While the new build is active or has succeeded, the same request gets the same build.
    build = read(client.post(path("builds", earlier, "retry"), {}, repeatable=True), Build.of)
    named = Text.assemble((plain(build.prefix), "bold"), f", build {plain(build.id)}, ")
    console.print(Text("Queued ") + named + Text(f"which retries the build {plain(earlier)}"), soft_wrap=True)
    return follow_to_end(client, build, console, log=log) if wait else build
