"""How a model that was made again compares with the original: identical, equivalent or different."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.registry.lineage.differences import InputDifference
from app.registry.models import figures
from app.registry.reproductions.outcomes import ChangedFigure, ChangedInput, NotPinned, Outcome
from app.words import Sameness

# The most figures and inputs that are listed, and the most names in a sentence.
_MOST_LISTED = 200
_MOST_NAMED = 10

# Shares are rounded to six digits.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Content:
    """What is known of the two files.

    `same_bytes` names what has the same bytes. `classes_differ` says how the classes differ: it is None if
    they do not, and `classes_known` is False if the original's are not known. `largest_difference` is that of
    a single weight; where it is not known, `not_compared` says why.
    """

    same_bytes: str | None = None
    classes_known: bool = True
    classes_differ: str | None = None
    largest_difference: float | None = None
    not_compared: str | None = None


def judge(
    content: Content,
    recorded: Mapping[str, Any],
    reproduced: Mapping[str, Any],
    inputs: Sequence[InputDifference],
    not_pinned: Sequence[NotPinned],
    tolerance: float,
) -> Outcome:
    """Compare the figures of all benchmarks, and decide. `inputs` has the reproduction's value as `this`."""
    changed = tuple(_changed_figures(recorded, reproduced, tolerance))
    problems = list(_problems(content, recorded, reproduced, changed, tolerance))
    if content.same_bytes is not None:
        verdict = Sameness.IDENTICAL
    else:
        verdict = Sameness.DIFFERENT if problems else Sameness.EQUIVALENT
    return Outcome(
        verdict=verdict,
        same_bytes=content.same_bytes,
        largest_difference=content.largest_difference,
        not_compared=content.not_compared,
        tolerance=tolerance,
        figures=changed[:_MOST_LISTED],
        inputs=tuple(
            ChangedInput(kind=one.kind, name=one.name, recorded=one.other, used=one.this)
            for one in inputs[:_MOST_LISTED]
        ),
        not_pinned=tuple(not_pinned),
        findings=(
            *(problems if content.same_bytes is None else _listed_figures(changed)),
            *_changed_inputs(inputs),
            *(f"{one}. What is there now was used, as was accepted." for one in not_pinned),
        ),
    )


def _problems(
    content: Content,
    recorded: Mapping[str, Any],
    reproduced: Mapping[str, Any],
    changed: Sequence[ChangedFigure],
    tolerance: float,
) -> Iterator[str]:
    """Why the models are not even equivalent, in sentences."""
    if not content.classes_known:
        yield f"The classes cannot be compared: {content.not_compared}."
    elif content.classes_differ is not None:
        yield f"The classes differ: {content.classes_differ}."
    if not set(recorded) & set(reproduced):
        yield "No benchmark was measured for both models, so nothing shows that they answer alike."
    for name in sorted(set(recorded) & set(reproduced)):
        versions = [figures.measurement_of(of[name]) for of in (recorded, reproduced)]
        if versions[0] != versions[1]:
            yield (
                f"{name} was measured in another way (version {versions[0]} for the original, and "
                f"{versions[1]} now), so its figures cannot be compared."
            )
    beyond = [one for one in changed if not one.within_tolerance]
    if beyond:
        yield f"These figures differ by more than {tolerance:g}: {_named(beyond)}."


def _listed_figures(changed: Sequence[ChangedFigure]) -> Iterator[str]:
    if changed:
        yield f"The weights are the same, and these figures of benchmarks differ: {_named(changed)}."


def _named(changed: Sequence[ChangedFigure]) -> str:
    named = [
        f"{one.figure} of {one.benchmark} ({_number(one.recorded)} recorded, {_number(one.reproduced)} now)"
        for one in changed[:_MOST_NAMED]
    ]
    more = len(changed) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:g}"


def _changed_inputs(inputs: Sequence[InputDifference]) -> Iterator[str]:
    for one in inputs[:_MOST_NAMED]:
        recorded, used = one.other or "nothing", one.this or "nothing"
        yield f"{one.kind} {one.name} differs: {recorded} was recorded, and {used} was used."
    if len(inputs) > _MOST_NAMED:
        yield f"{len(inputs) - _MOST_NAMED} more inputs differ."


def _changed_figures(
    recorded: Mapping[str, Any], reproduced: Mapping[str, Any], tolerance: float
) -> Iterator[ChangedFigure]:
    """Every figure that differs. Counts must be the same, and shares within the tolerance."""
    for benchmark in sorted({*recorded, *reproduced}):
        was, now = (figures.numbers(of.get(benchmark)) for of in (recorded, reproduced))
        for figure in sorted({*was, *now} - {figures.MEASUREMENT}):
            before, after = was.get(figure), now.get(figure)
            if before == after:
                continue
            allowed = 0.0 if figure == "count" else tolerance + _ROUNDING
            within = before is not None and after is not None and abs(after - before) <= allowed
            yield ChangedFigure(
                benchmark=benchmark,
                figure=figure,
                recorded=before,
                reproduced=after,
                within_tolerance=within,
            )
