"""What the benchmarks of a model say: figures, chapters, and its worst answers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.registry.errors import NotFound
from app.registry.models import catalogue, figures
from app.registry.models.catalogue import ArtifactRef
from app.registry.models.figures import MEASUREMENT, measurement_of
from app.registry.models.kept_results import Archive, KeptResults
from app.registry.models.predictions import Answer, Results
from app.registry.models.thresholds import counterpart, same_benchmark
from app.storage.keys import BENCHMARK_ZIP
from app.words import ModelState

_FIVE = 5


@dataclass(frozen=True)
class Subject:
    """A model whose benchmarks are asked for. `archive` is None if it has no archive of results.

    `collected`: garbage collection has deleted the archive, or is deleting it.
    """

    prefix: str
    metrics: Mapping[str, object]
    archive: Archive | None
    collected: bool


@dataclass(frozen=True)
class Measured:
    """All that is known of one benchmark. `answers` is empty if no answers are known.

    `figures` are shares from 0 to 1, and `count`.
    """

    name: str
    measurement: int
    figures: Mapping[str, float]
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Known:
    """The benchmarks of a model by name, and why there are no answers, if there are none."""

    prefix: str
    benchmarks: Mapping[str, Measured]
    problem: str | None

    def named(self, benchmark: str | None) -> list[Measured]:
        """All benchmarks, or those with this name. Raises NotFound if there is none with this name."""
        found = [
            one
            for name, one in sorted(self.benchmarks.items())
            if benchmark is None or same_benchmark(name, benchmark)
        ]
        if benchmark is not None and not found:
            names = ", ".join(sorted(self.benchmarks)) or "none"
            message = f"{self.prefix} has no benchmark {benchmark!r}. Its benchmarks are: {names}."
            raise NotFound(message)
        return found


@dataclass(frozen=True)
class Chapter:
    """The figures of the descriptions whose code is in one chapter (two digits)."""

    chapter: str
    count: int
    top_1: float
    top_5: float
    no_result: float


def subject(session: Session, prefix: str) -> Subject:
    """Raises NotFound."""
    model = catalogue.get_with_artifacts(session, prefix)
    archive = None
    collected = ModelState(model.state).gone
    for file in () if collected else model.artifacts:
        if file.name == BENCHMARK_ZIP:
            reference = ArtifactRef(file.name, file.key, file.sha256, file.size_bytes)
            archive = Archive(prefix, reference, missing=file.missing_since is not None)
    return Subject(prefix, model.metrics, archive, collected)


def known(of: Subject, kept: KeptResults) -> Known:
    """What is recorded of the model, with what its archive adds. No session may be open meanwhile.

    Raises ArtifactsMissing and BucketUnavailable.
    """
    read: Mapping[str, Results] = {} if of.archive is None else kept.of(of.archive)
    problem = None
    if of.collected:
        problem = f"{of.prefix} was collected with its answers, so only its figures are known."
    elif of.archive is None:
        problem = f"{of.prefix} has no {BENCHMARK_ZIP}, so only its figures are known."
    elif not any(results.answers for results in read.values()):
        problem = f"The {BENCHMARK_ZIP} of {of.prefix} has no answers that can be read."
    return Known(of.prefix, {one.name: one for one in _merged(of.metrics, read)}, problem)


def _merged(metrics: Mapping[str, object], read: Mapping[str, Results]) -> Iterator[Measured]:
    """The recorded figures with the answers. A benchmark of the archive alone has its own figures."""
    taken = set()
    for name in metrics:
        here = counterpart(name, read)
        taken.add(here)
        found = figures.numbers(metrics[name])
        answers = () if here is None else read[here].answers
        if found or answers:
            yield _measured(name, found, answers)
    for name, results in read.items():
        if name not in taken:
            yield _measured(name, results.figures or {}, results.answers)


def _measured(name: str, found: Mapping[str, float], answers: Sequence[Answer]) -> Measured:
    shown = {figure: value for figure, value in found.items() if figure != MEASUREMENT}
    return Measured(name, measurement_of(found), shown, answers)


def chapters(answers: Sequence[Answer]) -> list[Chapter]:
    """The figures by the chapter of the first right code. Descriptions that deserve no answer have none."""
    by_chapter: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.codes:
            by_chapter.setdefault(answer.codes[0][:2], []).append(answer)
    return [
        Chapter(
            chapter,
            len(of),
            _share(sum(answer.place == 1 for answer in of), len(of)),
            _share(sum(is_in_five(answer.place) for answer in of), len(of)),
            _share(sum(not answer.predictions for answer in of), len(of)),
        )
        for chapter, of in sorted(by_chapter.items())
    ]


def is_in_five(place: int | None) -> bool:
    return place is not None and place <= _FIVE


def wrong(answers: Sequence[Answer]) -> list[Answer]:
    """The answers whose first place is wrong, worst first.

    The lower the place of the right code, the worse the answer. Of equal places, the more certain the model
    was of its first code, the worse.
    """

    def badness(answer: Answer) -> tuple[int, float, str]:
        certain = answer.predictions[0].score if answer.predictions else 0.0
        return -(answer.place or 1_000), -certain, answer.description

    return sorted((answer for answer in answers if answer.place != 1), key=badness)


def _share(count: int, total: int) -> float:
    return round(count / total, 6)
