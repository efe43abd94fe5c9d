"""What was guessed, repaired or passed over while a source was read, so that it can be shown."""

from collections import Counter
from collections.abc import Iterable, Mapping
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


def counted(notes: Iterable[Note], repaired: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """How many rows were guessed, repaired and ignored, by what happened to them.

    `repaired` are the rows whose code was repaired when they were cleaned.
    """
    found: dict[str, Counter[str]] = {NoteKind.REPAIRED.value: Counter(repaired)}
    for note in notes:
        found.setdefault(note.kind.value, Counter())[note.what] += note.rows
    return {kind: dict(sorted(counts.items())) for kind, counts in sorted(found.items()) if counts}
