"""What all commands have in common: their options, their exit statuses, and what they say on stderr."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from cli.answers import ApiError
from cli.arguments import ArgumentError, optional, registry_token, registry_url
from cli.builds.checkout import CheckoutError
from cli.builds.follow import LostContact
from cli.builds.request import VersionNotRaised
from cli.client import RegistryClient
from cli.identity import GithubIdentity
from cli.output import lines

EXITS = (
    "Exit status: 0 when it is done or nothing is needed, 1 when the build or the run failed, a file of a "
    "model is not what was signed, or a test message was not sent, 2 when the arguments or the checkout "
    "cannot be used, or the version should have been raised, 3 when the registry refused or cannot be "
    "reached, 4 when it stopped answering while a build was followed, 70 for a defect of this command."
)

console = Console()
errors = Console(stderr=True)

# The variables are read in cli.arguments, because typer takes an empty variable for one that is not set.
Url = Annotated[
    str | None,
    typer.Option("--url", help="Where the registry's API is. \\[env var: REGISTRY_URL]", show_default=False),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token", help="The token to call with, if the registry needs one. \\[env var: REGISTRY_TOKEN]"
    ),
]


class Exit(IntEnum):
    """What a script can tell from the exit status."""

    FAILED = 1
    USAGE = 2
    REFUSED = 3
    LOST_CONTACT = 4
    DEFECT = 70
    INTERRUPTED = 130


def say(message: str) -> None:
    errors.print(Text(lines(message)), soft_wrap=True)


def fail(status: Exit, message: str) -> typer.Exit:
    errors.print(Text(lines(message), "red"), soft_wrap=True)
    return typer.Exit(status)


@contextmanager
def exit_statuses() -> Iterator[None]:
    """Give every way to end its exit status. Status 1 must mean nothing else than that the build failed."""
    # A terminal that has no check mark must not end the command while its build goes on.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except (ArgumentError, CheckoutError, VersionNotRaised) as exc:
        raise fail(Exit.USAGE, str(exc)) from exc
    except LostContact as exc:
        raise fail(Exit.LOST_CONTACT, str(exc)) from exc
    except ApiError as exc:
        raise fail(Exit.REFUSED, str(exc)) from exc
    except KeyboardInterrupt as exc:
        said = str(exc) or "Interrupted. What was asked for goes on."
        raise fail(Exit.INTERRUPTED, said) from exc
    except typer.Exit:
        raise
    except Exception as exc:
        traceback.print_exc()
        raise fail(
            Exit.DEFECT, "This is a defect of tariff-registry. Report it with the lines above."
        ) from exc


def client_of(url: str | None, token: str | None) -> RegistryClient:
    where, given = registry_url(url), registry_token(token)
    identity = None
    if given is None:
        audience = optional(None, "the audience", "REGISTRY_AUDIENCE")
        identity = GithubIdentity.of_environment(where, audience)
    return RegistryClient(where, given, identity=identity, note=say)
