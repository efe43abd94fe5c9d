"""`tariff-registry image`: the machine images that builds are trained on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import typer
from rich.table import Table
from rich.text import Text

from cli.answers import ApiError, read
from cli.arguments import optional
from cli.builds.checkout import CheckoutError, commit_of, git
from cli.ci.github import write_outputs
from cli.client import RegistryClient
from cli.output import plain
from cli.runs import run_to_end
from cli.shell import EXITS, Exit, Token, Url, client_of, console, exit_statuses, say

app = typer.Typer(no_args_is_help=True, help="The machine images that builds are trained on.")

VERSION_FILE = Path(".packer/ami-version.txt")
NOT_NEEDED = 5

Region = Annotated[str | None, typer.Option(help="Only images of this AWS region.")]


@dataclass(frozen=True)
class Image:
    """A machine image."""

    region: str
    image_id: str
    name: str
    version: str | None
    state: str
    created_at: str
    models: int

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        version = document["version"]
        return cls(
            region=str(document["region"]),
            image_id=str(document["image_id"]),
            name=str(document["name"]),
            version=None if version is None else str(version),
            state=str(document["state"]),
            created_at=str(document["created_at"]),
            models=int(document["models"]),
        )


@app.command("list", epilog=EXITS)
def list_images(
    url: Url = None,
    token: Token = None,
    region: Region = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The images, for scripts.")] = False,
) -> None:
    """Show the images, newest first, and how many models were made on each."""
    with exit_statuses():
        with client_of(url, token) as client:
            documents = _all(client, optional(region, "--region"))
        if as_json:
            typer.echo(json.dumps(documents, indent=2))
            return
        table = Table("image", "name", "region", "state", "made", "models")
        for image in (read(document, Image.of) for document in documents):
            cells = (image.image_id, image.name, image.region, image.state, image.created_at, image.models)
            table.add_row(*(Text(plain(cell)) for cell in cells))
        console.print(table)


@app.command(epilog=EXITS)
def latest(
    url: Url = None,
    token: Token = None,
    region: Region = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The image, for scripts.")] = False,
) -> None:
    """Show the image of the highest version that is available, as builds use it."""
    with exit_statuses():
        with client_of(url, token) as client:
            documents = _all(client, optional(region, "--region"))
        usable = [each for each in documents if each["state"] == "available" and each["version"] is not None]
        if not usable:
            message = "There is no image that builds could use. Make one with Packer: see .packer/."
            raise ApiError(message)
        found = max(usable, key=_order)
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        else:
            image = read(found, Image.of)
            typer.echo(f"{plain(image.name)} {plain(image.image_id)} {plain(image.region)}")


@app.command(
    epilog=f"{EXITS} And {NOT_NEEDED} when no image is needed.",
)
def needed(
    base: Annotated[str, typer.Option(help="Revision to compare with, such as origin/main or HEAD~1.")],
    url: Url = None,
    token: Token = None,
    region: Region = None,
    file: Annotated[Path, typer.Option(help="The file with the version.")] = VERSION_FILE,
) -> None:
    """Say whether an image must be made: the version has risen, and no image of that version is there.

    Sets the outputs `needed` (true or false) and `version` in a workflow.
    """
    with exit_statuses():
        version = _version(_read(file), str(file))
        before = _version_at(base, file)
        if before is not None and version <= before:
            _tell(version, is_needed=False)
            say(f"No image is needed: the version is {_text(version)}, and it is {_text(before)} at {base}.")
            raise typer.Exit(NOT_NEEDED)
        with client_of(url, token) as client:
            there = [
                document
                for document in _all(client, optional(region, "--region"))
                if document["version"] == _text(version) and document["state"] in ("available", "pending")
            ]
        _tell(version, is_needed=not there)
        if there:
            image = read(there[0], Image.of)
            say(f"No image is needed: {plain(image.name)} is there, as {plain(image.image_id)}.")
            raise typer.Exit(NOT_NEEDED)
        say(f"An image of the version {_text(version)} is needed.")


@app.command(epilog=EXITS)
def clean(
    url: Url = None,
    token: Token = None,
    keep_newest: Annotated[
        int, typer.Option(min=1, max=1000, help="So many of the highest versions stay in each region.")
    ] = 3,
    *,
    really: Annotated[
        bool, typer.Option("--really", help="Delete. Without it, what would be deleted is shown.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")] = True,
) -> None:
    """Delete images, and their snapshots, that neither the newest versions nor any model needs."""
    with exit_statuses():
        options = {"dry_run": not really, "keep_newest": keep_newest}
        with client_of(url, token) as client:
            run = run_to_end(client, "/images/clean", options, console, wait=wait)
        if run.state in ("failed", "stopped"):
            raise typer.Exit(Exit.FAILED)


def _all(client: RegistryClient, region: str | None) -> list[dict[str, Any]]:
    answer = client.listed("/images", region=region)
    for listing in answer["regions"]:
        if listing["problem"] is not None:
            say(f"The list of {plain(listing['region'])} may be old: {plain(listing['problem'])}")
    images: list[dict[str, Any]] = answer["items"]
    return images


def _order(document: Mapping[str, Any]) -> tuple[object, ...]:
    """Releases come before pre-releases of any version, as when a build chooses its image."""
    release, _, rest = str(document["version"]).partition("-")
    numbers = tuple(int(part) for part in release.partition("+")[0].split("."))
    return not rest, numbers, rest, document["created_at"]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        message = f"{file} cannot be read ({exc}). Change into a checkout that has it."
        raise CheckoutError(message) from exc


def _version_at(revision: str, file: Path) -> tuple[int, ...] | None:
    """The version at the revision. None if the file is not there."""
    sha = commit_of(Path.cwd(), revision)
    try:
        shown = git(Path.cwd(), "show", f"{sha}:./{file}")
    except CheckoutError:
        return None
    return _version(shown, f"{file} at {revision}")


def _version(text: str, where: str) -> tuple[int, ...]:
    """Raises CheckoutError unless it is MAJOR.MINOR.PATCH."""
    parts = text.strip().split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() for part in parts):
        message = f"{where} holds {text.strip()[:50]!r}, which is not MAJOR.MINOR.PATCH."
        raise CheckoutError(message)
    return tuple(map(int, parts))


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _tell(version: tuple[int, ...], *, is_needed: bool) -> None:
    write_outputs(needed="true" if is_needed else "false", version=_text(version))
