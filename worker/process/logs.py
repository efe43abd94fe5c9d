"""How the worker logs, and which errors it logs briefly."""

import asyncio
import logging
import re
from typing import Any

from procrastinate.exceptions import ConnectorException

from app.db.session import is_temporary

_log = logging.getLogger(__name__)


def configure() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.INFO)
    logging.getLogger("procrastinate").setLevel(logging.WARNING)
    logging.getLogger("paramiko").setLevel(logging.ERROR)
    # It logs the address of each request, and those that notifications are sent to are secret.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_without_traceback)


def in_one_line(error: BaseException) -> str:
    """The error's type and its first line: database errors go on with the statement and its values."""
    lines = str(error.__cause__ or error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


# Control characters but the line's end: they would move a terminal's cursor, or begin a line of their own.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def entry(text: str) -> str:
    """The text as one entry of a log, whatever it quotes: nothing in it can look like an entry of its own."""
    shown = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return shown.replace("\n", "\n    ")


def is_expected(error: BaseException) -> bool:
    """Whether the error comes from an outage of the database, or from a job that another worker has by now.

    The queue raises ConnectorException for both. A traceback would not help a reader.
    """
    return isinstance(error, ConnectorException) or is_temporary(error)


def _without_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if record.name.startswith("procrastinate") and error is not None and is_expected(error):
        record.exc_info = None
        record.exc_text = None
    return True


def on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Handles errors outside awaited code, such as a job's outcome that the queue could not store."""
    error = context.get("exception")
    if error is not None and is_expected(error):
        _log.warning("a job's outcome was not stored: %s", in_one_line(error))
    else:
        loop.default_exception_handler(context)
