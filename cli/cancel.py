"""Cancel a build, and wait until it has ended."""

from uuid import UUID

from rich.console import Console
from rich.text import Text

from cli.answers import Build, read
from cli.arguments import ArgumentError, model_prefix, text
from cli.client import RegistryClient, path
from cli.follow import follow
from cli.output import plain


def cancel_build(client: RegistryClient, which: str, console: Console, *, wait: bool) -> Build:
    """Cancel the build with this id, or the newest one of this prefix. Raises ApiError, ArgumentError."""
    build = read(client.post(path("builds", _id_of(client, which), "cancel"), {}), Build.of)
    if not build.ended:
        console.print(f"Cancelling the build {plain(build.id)} of {plain(build.prefix)}")
        if wait:
            build = follow(client, build.id, console)
    if build.ended:
        what = Text.assemble("Build ", plain(build.id), " of ", (plain(build.prefix), "bold"), " is ")
        console.print(what + Text(plain(build.state)))
    return build


def _id_of(client: RegistryClient, which: str) -> str:
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
