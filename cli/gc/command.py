"""The commands of `tariff-registry gc`."""

import typer

from cli.gc import models
from cli.shell import EXITS

app = typer.Typer(
    no_args_is_help=True,
    help="Garbage collection: restore models, and say which ones are kept, or may be deleted.",
)
for command in (models.restore, models.pin, models.unpin, models.release):
    app.command(epilog=EXITS)(command)
