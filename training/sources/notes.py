"""What was guessed, repaired or passed over while a source was read, so that it can be shown."""

from dataclasses import dataclass
from enum import StrEnum


class NoteKind(StrEnum):
    """How sure a reader can be of the rows that a note is about."""

    GUESSED = "guessed"
    REPAIRED = "repaired"
    IGNORED = "ignored"


@dataclass(frozen=True)
class Note:
    """`what` groups notes, so it has no details of a single row. `example` shows one of the `rows` rows.

    The line counts from 1; it is None if the note is about the whole file.
    """

    kind: NoteKind
    what: str
    rows: int = 1
    line: int | None = None
    example: str = ""
