"""The commands of `tariff-registry gc`."""

import typer

from cli.gc import models, rules, runs
from cli.gc.plan import plan
from cli.shell import EXITS

app = typer.Typer(
    no_args_is_help=True,
    help="Garbage collection: see its plan, restore models, and say which ones are kept, or may go.",
)
for command in (
    plan,
    runs.run,
    runs.status,
    runs.stop,
    models.restore,
    models.pin,
    models.unpin,
    models.release,
):
    app.command(epilog=EXITS)(command)
app.add_typer(rules.app, name="release-rule")
