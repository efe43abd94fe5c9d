"""The command: gets what it is given to verify, and says which files are wrong."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from cli.answers import ApiError, read
from cli.arguments import ArgumentError, model_prefix
from cli.client import RegistryClient, path
from cli.output import lines
from cli.shell import Exit, Token, Url, client_of, console, exit_statuses, fail, say
from cli.verification.checks import (
    SIGNATURE,
    Finding,
    LibrariesMissing,
    check,
    need_libraries,
)


@contextmanager
def _statuses() -> Iterator[None]:
    with exit_statuses():
        try:
            yield
        except LibrariesMissing as exc:
            raise fail(Exit.USAGE, str(exc)) from exc


def verify(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A prefix, or a folder with a model's downloaded files, such as ./0.0.2-aff1242.",
        ),
    ],
    key: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="The registry's public key, in PEM. Without it, the registry is asked for its keys.",
        ),
    ] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--input",
            exists=True,
            help="A file that the model is said to be made from, or a folder with such files. Each must be "
            "an input that provenance.json names. It can be given several times.",
        ),
    ] = None,
    url: Url = None,
    token: Token = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Keep the downloaded files of a prefix in this folder, which must be empty or new. They are "
            "only there if all of them are right.",
        ),
    ] = None,
) -> None:
    """Verify a model: its signature, the digest of each file, and what its provenance says of them."""
    with _statuses(), tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        need_libraries()
        if keep is not None and keep.exists() and any(keep.iterdir()):
            message = f"{keep} is not empty. Name an empty or a new folder for the model's files."
            raise ArgumentError(message)
        folder, recorded = Path(model), None
        # A prefix is never taken for a folder of the same name, into which somebody may have downloaded it.
        if _is_prefix(model) or not folder.is_dir():
            with client_of(url, token) as client:
                recorded = _download(client, model, folder := _made(work / "model"))
                _tell_lost_inputs(client, model)
        if key is None:
            with client_of(url, token) as client:
                key = _registry_key(client, folder, work)
            say("The key comes from the registry. Give --key to rely on one that you got in another way.")
        status = _tell(console, model, check(folder, key, recorded, _files(inputs or ())))
        if keep is not None and status == 0:
            shutil.copytree(folder, keep, dirs_exist_ok=True)
        raise typer.Exit(status)


def _is_prefix(model: str) -> bool:
    try:
        model_prefix(model)
    except ArgumentError:
        return False
    return True


def _files(given: Iterable[Path]) -> list[Path]:
    """The files, and those in the folders."""
    return [
        file
        for path_ in given
        for file in (sorted(path_.rglob("*")) if path_.is_dir() else [path_])
        if file.is_file()
    ]


def _tell(out: Console, model: str, findings: Sequence[Finding]) -> int:
    for finding in findings:
        detail = f" ({finding.detail})" if finding.detail else ""
        out.print(Text(lines(f"✗ {finding.name} {finding.fault}{detail}"), "red"), soft_wrap=True)
    if findings:
        return Exit.FAILED
    out.print(Text(lines(f"✓ {model}: all files are those that were signed")), soft_wrap=True)
    return 0


def _download(client: RegistryClient, prefix: str, to: Path) -> dict[str, str | None]:
    """Fetch every file of the model; returns the digests that the registry has recorded."""
    recorded = read(client.get(path("models", prefix)), _digests)
    for name in recorded:
        # A file that is gone is told of as missing, if it was signed.
        try:
            client.download(path("models", prefix, "artifacts", name), to / Path(name).name)
        except ApiError as exc:
            if exc.passes or exc.status not in (403, 404):
                raise
    return recorded


def _tell_lost_inputs(client: RegistryClient, prefix: str) -> None:
    """Say which inputs the last reconciliation has missed. The model itself is not wrong for it."""
    try:
        found = client.get(path("models", prefix, "lineage"))
    except ApiError as exc:
        # A registry of an earlier release has no lineage.
        if exc.status != HTTPStatus.NOT_FOUND:
            raise
        return
    for said in read(found, _lost_inputs):
        say(said)


def _lost_inputs(lineage: Mapping[str, Any]) -> list[str]:
    return [
        f"! {node['name']}, an input, is not in the bucket as it was recorded: inputs/sha256/"
        f"{node['sha256']} is missing since {since}. The model cannot be made again until it is back."
        for node in lineage["nodes"]
        if (since := node["details"].get("missing_since")) is not None
    ]


def _digests(model: Mapping[str, Any]) -> dict[str, str | None]:
    return {str(file["name"]): file["sha256"] for file in model["artifacts"]}


def _registry_key(client: RegistryClient, folder: Path, work: Path) -> Path:
    """The registry's key that the signature names, or else its newest. Raises ApiError."""
    keys = read(client.get(path("signing-keys")), _keys)
    if not keys:
        message = "The registry has never signed a model. Give the public key with --key."
        raise ApiError(message)
    signature = folder / SIGNATURE
    text = signature.read_text(errors="replace") if signature.is_file() else ""
    named = next((pem for fingerprint, pem in keys.items() if fingerprint in text), next(iter(keys.values())))
    file = work / "registry.pub"
    file.write_text(named)
    return file


def _keys(document: Mapping[str, Any]) -> dict[str, str]:
    return {str(key["fingerprint"]): str(key["public_key"]) for key in document["items"]}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
