"""Make a model again from its recorded inputs, and show how the two compare."""

import json
from typing import Annotated

import typer
from rich.console import Console

from cli.answers import Build, read
from cli.arguments import model_prefix, text
from cli.builds.follow import follow_to_end
from cli.client import path
from cli.output import plain
from cli.shell import Exit, Token, Url, client_of, console, exit_statuses

_THE_SAME = ("identical", "equivalent")


def reproduce(
    prefix: Annotated[str, typer.Argument(help="The model, such as 0.0.2-aff1242.")],
    url: Url = None,
    token: Token = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            help="Use what is there now of this kind of input, such as machine_image, where it cannot be had "
            "as it was recorded. Repeat it for several."
        ),
    ] = None,
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put lost files of the model back where they are the same.")
    ] = False,
    model_zip: Annotated[
        bool,
        typer.Option(
            "--model-zip",
            help="With --repair, also write a missing or different model.zip again. Existing tools then take "
            "it for the newest of its version.",
        ),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the build to its end.")] = True,
    log: Annotated[bool, typer.Option("--log/--no-log", help="Show the lines of the build's log.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The API's answer, for scripts.")] = False,
) -> None:
    """Make a model again from its recorded inputs, and compare the two. Nothing is published.

    The exit status is 0 only if the models are identical or equivalent.
    """
    with exit_statuses():
        body: dict[str, object] = {}
        if accept:
            body["accept"] = [text(one, "--accept") for one in accept]
        if repair:
            body["repair"] = True
        if model_zip:
            body["model_zip"] = True
        where = path("models", model_prefix(prefix), "reproduce")
        # With --json, only the answer goes to the standard output.
        shown = Console(stderr=True) if as_json else console
        with client_of(url, token) as client:
            # While the build is active, the same request gets the same build.
            answer = client.post(where, body, repeatable=True)
            build = read(answer, Build.of)
            shown.print(f"Making {plain(build.prefix)} again: build {plain(build.id)}", markup=False)
            if wait:
                build = follow_to_end(client, build, shown, log=log)
                answer = client.get(path("builds", build.id))
        if as_json:
            typer.echo(json.dumps(answer, indent=2))
        if build.ended and (build.state != "succeeded" or build.verdict not in _THE_SAME):
            raise typer.Exit(Exit.FAILED)
