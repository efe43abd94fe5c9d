"""`make demo`: the main job from end to end, done by the real service on real input.

It trains a model on the real nomenclature, publishes it, promotes it, fetches it as a deploy job would, and
classifies with it.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console

from app.registry.errors import RegistryError
from app.settings import Settings
from app.storage import keys
from app.storage.bucket import Bucket, digest_of
from cli.answers import ApiError, Latest, read
from cli.builds.checkout import Checkout, CheckoutError
from cli.builds.request import request_build
from cli.client import RegistryClient
from cli.output import show_latest
from local.demo import inputs
from local.stack import ROOT, Stack, StackError, default_state

DESCRIPTIONS = ("mens cotton trousers", "stainless steel kitchen knife", "roasted coffee beans")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class TourError(Exception):
    """A part of the tour did not show what it must. The message says what is wrong."""


class Tour:
    """The parts of the tour, in their order."""

    def __init__(self, stack: Stack, console: Console, source: Path | None) -> None:
        self._stack = stack
        self._console = console
        self._source = source
        # The tour uses the simulated account of the service, and never the caller's own.
        os.environ.update(
            {name: value for name, value in stack.environment.items() if name.startswith("AWS_")}
        )
        environment = stack.environment
        settings = Settings.model_validate(
            {
                "database_url": environment["DATABASE_URL"],
                "aws_endpoint_url": environment["AWS_ENDPOINT_URL"],
                "region": environment["AWS_REGION"],
            }
        )
        self._bucket = Bucket.of(settings)

    def run(self) -> None:
        """Raises TourError, ApiError, CheckoutError."""
        with RegistryClient(self._stack.url) as client:
            self._fill_bucket()
            prefix = self._build(client)
            self._show_bucket(prefix)
            self._promote(client, prefix)
            model = self._download(client)
        self._classify(model)

    def _head(self, title: str) -> None:
        self._console.print(f"\n[bold]{title}[/]")

    def _fill_bucket(self) -> None:
        self._head(f"The inputs, in the bucket {self._bucket.name}")
        with tempfile.TemporaryDirectory() as folder:
            raw, benchmarking = Path(folder) / keys.RAW_SOURCE_DATA, Path(folder) / keys.BENCHMARKING_DATA
            if self._source is None:
                inputs.build_raw_source_data(raw)
                inputs.build_benchmarking_data(benchmarking)
            else:
                inputs.build_from_folder(self._source, raw, benchmarking)
            for path in (raw, benchmarking):
                content = digest_of(path)
                there = self._bucket.head(path.name)
                same = there is not None and there.sha256 == content.sha256
                if not same:
                    self._bucket.write(path.name, path.read_bytes(), over=there)
                word = "was there already" if same else "uploaded"
                self._console.print(
                    f"  {path.name:<24} {content.size_bytes:>12,} bytes  {word}", highlight=False
                )

    def _build(self, client: RegistryClient) -> str:
        checkout = Checkout.at(ROOT)
        self._head(f"A build of this checkout, as CI asks for it: POST {self._stack.url}/builds")
        if checkout.changed:
            self._console.print("  [yellow]Changes that are not committed are not part of it.[/]")
        asked = request_build(client, checkout, self._console)
        # A run that is stopped in the middle ends its simulated machines. The build then gets another one.
        if asked.state != "succeeded":
            message = f"The build ended as {asked.state}. The lines above say why."
            raise TourError(message)
        return str(client.get("/builds", limit=1, state="succeeded")["items"][0]["prefix"])

    def _show_bucket(self, prefix: str) -> None:
        self._head("The bucket now, object by object")
        # The mirror writes the marker of the verdict a moment after the model is published.
        self._await_key(f"{prefix}/passed", f"{prefix}/failed")
        for key, size in self._bucket.list():
            self._console.print(f"  {size:>12,} bytes  {key}", highlight=False, soft_wrap=True)

    def _await_key(self, *keys_: str) -> None:
        """Wait until the bucket has one of the objects. Raises TourError."""
        ends = time.monotonic() + 60
        while all(self._bucket.head(key) is None for key in keys_):
            if time.monotonic() > ends:
                message = f"The worker did not write {' or '.join(keys_)} into the bucket within a minute."
                raise TourError(message)
            time.sleep(0.2)

    def _promote(self, client: RegistryClient, prefix: str) -> None:
        self._head(f"Promotion: POST /models/{prefix}/promotions")
        promotion = client.post(f"/models/{prefix}/promotions", {"stage": "development", "note": "the demo"})
        self._console.print(
            f"  {prefix} runs in {promotion['stage']} since {promotion['promoted_at']}", highlight=False
        )
        marker = f"{prefix}/{promotion['stage']}"
        self._await_key(marker)
        self._console.print(f"  The marker in the bucket: {marker}, 0 bytes", highlight=False)

    def _download(self, client: RegistryClient) -> Path:
        self._head("As the deploy job: GET /models/development/latest")
        latest = client.get("/models/development/latest")
        found = read(latest, Latest.of)
        show_latest(self._console, "development", found)
        wanted = next(artifact for artifact in found.artifacts if artifact.name == keys.MODEL_ZIP)
        target: Path = self._stack.state / "downloads" / latest["prefix"] / keys.MODEL_ZIP
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with httpx.stream("GET", wanted.url) as response, target.open("wb") as file:
            response.raise_for_status()
            for block in response.iter_bytes():
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != wanted.sha256:
            message = f"model.zip has the sha256 {digest.hexdigest()}, but {wanted.sha256} was promised."
            raise TourError(message)
        self._console.print(
            f"  Downloaded to {target}. [green]Its sha256 is the promised one.[/]", soft_wrap=True
        )
        return target

    def _classify(self, model: Path) -> None:
        self._head("Three descriptions, classified with it")
        command = ["-m", "training", "classify", "--output", str(model.parent), *DESCRIPTIONS]
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=self._stack.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        self._console.print(done.stdout.rstrip(), markup=False, highlight=False)
        if done.returncode != 0:
            message = f"python {' '.join(command)} ended with status {done.returncode}: {done.stderr.strip()}"
            raise TourError(message)


@app.command()
def main(
    state: Annotated[Path | None, typer.Option(help="Folder that keeps the database and the bucket.")] = None,
    port: Annotated[int, typer.Option(help="The API's port; another one is taken when it is in use.")] = 8000,
    source: Annotated[
        Path | None,
        typer.Option(help="Folder with other data, in the layout that `python -m local.demo --from` takes."),
    ] = None,
    *,
    leave: Annotated[bool, typer.Option("--exit", help="Stop everything at the end.")] = False,
) -> None:
    """Train, publish, promote, deploy and use a real model, on this machine."""
    console = Console()
    began = time.monotonic()
    try:
        console.print("[bold]Everything on this machine[/]")
        with Stack(state or default_state(), console, port=port) as stack:
            Tour(stack, console, source).run()
            console.print(f"\nAll of it took {time.monotonic() - began:.0f} s.", highlight=False)
            if not leave:
                console.print(f"The API's pages are at [bold]{stack.url}/docs[/]. Ctrl-C stops everything.")
                stack.wait()
    except KeyboardInterrupt:
        console.print("Stopped.")
        raise typer.Exit(130) from None
    except (StackError, TourError, ApiError, CheckoutError, RegistryError) as exc:
        console.print(str(exc), style="red", markup=False, highlight=False)
        raise typer.Exit(1) from exc


if __name__ == "__main__":
    app()
