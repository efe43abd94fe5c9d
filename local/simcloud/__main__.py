"""`python -m local.simcloud`: the simulated AWS as a process of its own."""

import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from local.simcloud.server import SimCloud, SimCloudError
from local.simcloud.settings import Settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on. 0 takes any free one.")] = 5555,
    ssh_port: Annotated[int, typer.Option(help="The instances' SSH port. 0 takes any free one.")] = 2222,
    state: Annotated[Path, typer.Option(help="Folder that keeps the bucket and the private key.")] = Path(
        ".tariff-registry/simcloud"
    ),
    repository: Annotated[
        Path | None, typer.Option(help="Git repository that every instance has a clone of.")
    ] = None,
    more_region: Annotated[
        list[str] | None,
        typer.Option(help="Further region with a network and images. May be given more than once."),
    ] = None,
    *,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log every call.")] = False,
) -> None:
    """Run a simulated AWS: EC2 with a real SSH server for every instance, S3, Secrets Manager and STS."""
    logging.basicConfig(format="%(asctime)s simcloud %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    logging.getLogger("simcloud").setLevel(logging.DEBUG if verbose else logging.INFO)
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    settings = Settings(
        host=host,
        port=port,
        ssh_port=ssh_port,
        state=state,
        repository=repository,
        more_regions=tuple(more_region or ()),
    )
    try:
        with SimCloud(settings) as cloud:
            typer.echo(
                f"simcloud listens on {cloud.endpoint_url}. Its instances listen on "
                f"{settings.address_prefix}*, port {cloud.ssh_port}. Its state is in {cloud.state}."
            )
            sys.stdout.flush()
            done.wait()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except SimCloudError as error:
        typer.echo(f"simcloud: {error}", err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
