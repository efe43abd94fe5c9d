"""Cancel a build, and wait until it has ended."""

from rich.console import Console
from rich.text import Text

from cli.answers import Build, read
from cli.builds.follow import build_id_of, follow
from cli.client import RegistryClient, path
from cli.output import plain


def cancel_build(client: RegistryClient, which: str, console: Console, *, wait: bool) -> Build:
    """Cancel the build with this id, or the newest one of this prefix. Raises ApiError, ArgumentError."""
    build = read(client.post(path("builds", build_id_of(client, which), "cancel"), {}), Build.of)
    if not build.ended:
        console.print(f"Cancelling the build {plain(build.id)} of {plain(build.prefix)}")
        if wait:
            build = follow(client, build.id, console)
    if build.ended:
        what = Text.assemble("Build ", plain(build.id), " of ", (plain(build.prefix), "bold"), " is ")
        console.print(what + Text(plain(build.state)))
    return build
