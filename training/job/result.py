"""`result.json`: what a run says of its end. It stands on the standard library, so that it loads at once."""

import json
from pathlib import Path
from typing import Any, Final

from training.errors import FailureCode
from training.files import written_whole

RESULT: Final = "result.json"


def folder_of(job: Path | None, output: Path) -> Path:
    """Where it lies: beside a job's job.json; by hand, in the output."""
    return output if job is None else job.resolve().parent


def write_result(folder: Path, command: str, content: dict[str, Any]) -> None:
    """`content` has the outcome, and what goes with it."""
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / RESULT) as beside:
        whole = {"schema": 1, "command": command, **content}
        beside.write_text(json.dumps(whole, indent=2) + "\n", "utf-8")


def write_failure(folder: Path, command: str, reason: FailureCode, message: str) -> int:
    """Returns the exit status that goes with the reason."""
    write_result(folder, command, {"outcome": "failed", "code": reason.code, "message": message})
    return reason.exit_status


def exit_status_of(folder: Path) -> int | None:
    """The exit status of the failure that `result.json` names; None where it names none."""
    try:
        code = json.loads((folder / RESULT).read_text("utf-8")).get("code")
    except (OSError, ValueError):
        return None
    return next((reason.exit_status for reason in FailureCode if reason.code == code), None)
