"""What a model answered to each description of its benchmarks, read from a `benchmark_results.zip`.

Both this registry's archives and those of the team's tools are read. As such a file may come from anywhere,
whatever cannot be read is left out without an error (`archive.py` says how much is read at most).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from sys import intern
from typing import IO

from app.registry.models import figures
from app.registry.models.archive import Form, ResultFile, result_files

# Longer descriptions and further predictions are cut, as no reader needs them.
_LONGEST = 2_000
_MOST_PREDICTIONS = 20
# What one description and one prediction take in memory, besides the description's characters.
_BYTES_OF_AN_ANSWER = 300
_BYTES_OF_A_PREDICTION = 88


@dataclass(frozen=True, slots=True)
class Prediction:
    """A code that the model gave, with its score in (0, 1]."""

    code: str
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered to one description: predictions, best first, or none for a refusal.

    `codes` are the codes that are right. There are none if refusing the description is right.
    """

    description: str
    codes: tuple[str, ...]
    predictions: tuple[Prediction, ...]

    @property
    def rank(self) -> int | None:
        """The place of the first right code, from 1. None if no prediction is right."""
        places = (place for place, found in enumerate(self.predictions, 1) if found.code in self.codes)
        return next(places, None)

    @property
    def place(self) -> int | None:
        """As `rank`, and 1 for a refusal that is right."""
        return self.rank if self.codes or self.predictions else 1


@dataclass(frozen=True, slots=True)
class Results:
    """The results of one benchmark.

    Figures are shares in [0, 1], except `count` and `measurement`; None if the archive has none.
    `figures.measurement_of` says which figures can be compared. `answers` is empty if the archive has none.
    """

    name: str
    figures: dict[str, float] | None = None
    answers: tuple[Answer, ...] = ()

    @property
    def size_bytes(self) -> int:
        """About how much memory this takes."""
        return sum(
            _BYTES_OF_AN_ANSWER + len(answer.description) + _BYTES_OF_A_PREDICTION * len(answer.predictions)
            for answer in self.answers
        )


def of_zip(file: IO[bytes] | bytes) -> dict[str, Results]:
    """The results of each benchmark by its name. Of an archive that cannot be read, there are none."""
    found: dict[str, Results] = {}
    for result in result_files(file):
        name = _name(result)
        there = found.get(name, Results(name))
        measured = figures.of_result(result)
        if measured is not None:
            there = replace(there, figures=measured[1])
        answers = tuple(_answers(result))
        if answers:
            there = replace(there, answers=answers)
        if there.figures is not None or there.answers:
            found[name] = there
    return found


def _name(result: ResultFile) -> str:
    if result.form is Form.OURS and isinstance(result.content, dict):
        return str(result.content.get("benchmark"))
    return result.benchmark


def _answers(result: ResultFile) -> Iterator[Answer]:
    content = result.content
    if result.form is Form.OURS and isinstance(content, dict):
        rows, of_code, of_predictions = content.get("predictions"), "code", "results"
    elif result.form is Form.TEAMS_DETAILS:
        rows, of_code, of_predictions = content, "correct_code", "predictions"
    else:
        return
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and isinstance(row.get("description"), str):
            yield Answer(
                row["description"][:_LONGEST],
                tuple(_codes(row.get(of_code))),
                tuple(_predictions(row.get(of_predictions))),
            )


def _codes(value: object) -> Iterator[str]:
    """The right codes: one, several, or none."""
    for code in value if isinstance(value, list) else (value,):
        if isinstance(code, str) and code:
            yield intern(code[:_LONGEST])


def _predictions(value: object) -> Iterator[Prediction]:
    for item in value[:_MOST_PREDICTIONS] if isinstance(value, list) else ():
        if isinstance(item, dict) and isinstance(item.get("code"), str):
            score = figures.number(item.get("score"))
            if score is not None:
                yield Prediction(intern(item["code"][:_LONGEST]), score)
