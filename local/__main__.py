"""`python -m local`: Postgres, a simulated AWS, the API and a worker, until Ctrl-C."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from local.stack import Stack, StackError, default_state

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def main(
    state: Annotated[Path | None, typer.Option(help="Folder that keeps the database and the bucket.")] = None,
    port: Annotated[
        int, typer.Option(help="The API's port. When it is in use, another one is taken.")
    ] = 8000,
) -> None:
    """Run everything on this machine: Postgres, a simulated AWS, the API and a worker, until Ctrl-C."""
    console = Console()
    try:
        with Stack(state or default_state(), console, port=port) as stack:
            console.print(f"The API's pages are at [bold]{stack.url}/docs[/]. Ctrl-C stops everything.")
            stack.wait()
    except StackError as exc:
        Console(stderr=True).print(str(exc), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(3) from exc


if __name__ == "__main__":
    app(prog_name="python -m local")
