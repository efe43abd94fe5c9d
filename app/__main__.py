"""`python -m app`: serve the API, or migrate the database."""

import sys
from typing import Annotated

import typer

from app.db import migrate as migrations
from app.db.session import Database
from app.server import serve
from app.settings import Settings, SettingsError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


@app.command()
def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
) -> None:
    """Serve the API."""
    serve(Settings.from_environment(), host=host, port=port)


@app.command()
def migrate(
    revision: Annotated[str, typer.Argument(help="The revision to go to.")] = "head",
    *,
    down: Annotated[bool, typer.Option("--down", help="Downgrade to the revision.")] = False,
) -> None:
    """Bring the database's schema to a revision, the newest by default."""
    database = Database(Settings.from_environment().database_url.get_secret_value())
    if down:
        migrations.downgrade(database, revision)
    else:
        migrations.upgrade(database, revision)
    with database.engine.connect() as connection:
        typer.echo(f"The schema is at {migrations.current(connection) or 'nothing'}.")


if __name__ == "__main__":
    try:
        app(prog_name="python -m app")
    except SettingsError as exc:
        typer.echo(str(exc), err=True)
        sys.exit(2)
