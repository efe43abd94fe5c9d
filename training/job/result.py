"""`result.json`: how a run ended. This module needs only the standard library, so that it loads quickly."""

import json
from pathlib import Path
from typing import Any, Final

from training.errors import FailureCode
from training.files import written_whole
from training.storable import several_lines, storable, without_secrets

RESULT: Final = "result.json"


def folder_of(job: Path | None, output: Path) -> Path:
    """The folder of `result.json`: the one of `job.json`, or the output folder if there is no job."""
    return output if job is None else job.resolve().parent


def write_result(folder: Path, command: str, content: dict[str, Any]) -> None:
    """Write `result.json` atomically. `content` holds the outcome and what belongs to it."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = storable({"schema": 1, "command": command, **content})
    if "message" in content:
        # The only text with several lines.
        whole["message"] = several_lines(content["message"])
    with written_whole(folder / RESULT) as beside:
        beside.write_text(json.dumps(whole, indent=2, allow_nan=False) + "\n", "utf-8")


def write_failure(folder: Path, command: str, reason: FailureCode, message: str) -> int:
    """Write a failure, and return the exit status that belongs to the reason."""
    content = {"outcome": "failed", "code": reason.code, "message": without_secrets(message)}
    write_result(folder, command, content)
    return reason.exit_status


def exit_status_of(folder: Path) -> int | None:
    """The exit status of the failure in `result.json`, or None if there is none."""
    try:
        code = json.loads((folder / RESULT).read_text("utf-8")).get("code")
    except (OSError, ValueError):
        return None
    return next((reason.exit_status for reason in FailureCode if reason.code == code), None)
