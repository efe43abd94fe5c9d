"""docs/failure-codes.md as it is committed. After a change of the codes, write it anew:

python -m tests.unit.app.failure_codes
"""

from pathlib import Path

from app.failures import FailureCode

PAGE = Path(__file__).resolve().parents[3] / "docs" / "failure-codes.md"

_HEAD = """\
# Why builds fail

A failed build has a `failure` with the step, a code, and a message that says what is wrong and what to do.
The code is stable, so programs can branch on it. `retry_helps` says whether the same build may succeed when
it is retried or posted again. A training at another commit may report a code that is not listed here.

| code | what it means | who can remove the cause | does a retry help? | what to do |
| --- | --- | --- | --- | --- |
"""


def page() -> str:
    """The page that the codes in app/failures.py make."""
    rows = []
    for code in FailureCode:
        retry = "yes" if code.retry_helps else "no"
        rows.append(f"| `{code}` | {code.meaning} | {code.responsible} | {retry} | {code.advice} |")
    return _HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
