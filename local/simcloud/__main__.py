"""`python -m local.simcloud`: the simulated AWS as a process of its own."""

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from local.simcloud.server import SimCloud, SimCloudError
from local.simcloud.settings import Settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
DEFAULTS = Settings()


def _option(variable: str, text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(envvar=f"SIMCLOUD_{variable}", help=text)
    return option


@app.command(
    help="Run a simulated AWS: EC2 with a real SSH server behind every instance, S3, Secrets Manager, STS."
)
def main(
    host: Annotated[str, _option("HOST", "Address to listen on.")] = DEFAULTS.host,
    port: Annotated[int, _option("PORT", "Port to listen on; 0 for any.")] = 5555,
    ssh_port: Annotated[int, _option("SSH_PORT", "The instances' SSH port; 0 for any.")] = 2222,
    state: Annotated[Path, _option("STATE", "Folder that keeps the bucket and the key.")] = Path(
        ".tariff-registry/simcloud"
    ),
    repository: Annotated[
        Path | None, _option("REPOSITORY", "Git repository that instances have a clone of.")
    ] = None,
    python: Annotated[str, _option("PYTHON", "Python of the instances' environment.")] = sys.executable,
    bucket: Annotated[str, _option("BUCKET", "Bucket to make if it is not there.")] = DEFAULTS.bucket,
    region: Annotated[
        str, _option("REGION", "Region with the bucket, the network and the images.")
    ] = DEFAULTS.region,
    more_region: Annotated[
        list[str] | None,
        _option("MORE_REGIONS", "Further region with a network and images; may be repeated."),
    ] = None,
    subnet_cidr: Annotated[str, _option("SUBNET_CIDR", "The subnet's addresses.")] = DEFAULTS.subnet_cidr,
    security_group: Annotated[str, _option("SECURITY_GROUP", "The group's name.")] = DEFAULTS.security_group,
    key_pair: Annotated[str, _option("KEY_PAIR", "The key pair's name.")] = DEFAULTS.key_pair,
    secret: Annotated[str, _option("SECRET", "The secret with the private key.")] = DEFAULTS.secret,
    boot_seconds: Annotated[
        float, _option("BOOT_SECONDS", "How long instances stay pending.")
    ] = DEFAULTS.boot_s,
    session_env: Annotated[
        list[str] | None, _option("SESSION_ENV", "NAME=VALUE for what runs on instances; may be repeated.")
    ] = None,
    *,
    keep_homes: Annotated[
        bool,
        typer.Option(
            "--keep-homes", envvar="SIMCLOUD_KEEP_HOMES", help="Keep terminated instances' folders."
        ),
    ] = False,
    exit_with_parent: Annotated[
        bool, typer.Option("--exit-with-parent", help="End when the process that started this one ends.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log every call.")] = False,
) -> None:
    parent = os.getppid()
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
        python=python,
        session_environment=_pairs(session_env or []),
        region=region,
        more_regions=tuple(more_region or ()),
        bucket=bucket,
        subnet_cidr=subnet_cidr,
        security_group=security_group,
        key_pair=key_pair,
        secret=secret,
        boot_s=boot_seconds,
        keep_homes=keep_homes,
    )
    try:
        with SimCloud(settings) as cloud:
            typer.echo(
                f"simcloud listens on {cloud.endpoint_url}, its instances on {settings.address_prefix}*"
                f" port {cloud.ssh_port}; state in {cloud.state}"
            )
            sys.stdout.flush()
            # A parent that ends leaves its children to another process.
            while not done.wait(0.25) and not (exit_with_parent and os.getppid() != parent):
                pass
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except SimCloudError as error:
        typer.echo(f"simcloud: {error}", err=True)
        raise typer.Exit(1) from error


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"--session-env {text!r} is not NAME=VALUE")
        pairs[name] = value
    return pairs


if __name__ == "__main__":
    app()
