"""The validation of a new model: its benchmark figures against those of the model in production."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from app.words import Verdict

# The figures that decide, the first of them that production has. For descriptions that have a code, a refusal
# counts as a mistake. For those that deserve no code, a refusal is the right answer.
_DECIDING = ("top_1", "no_result")


@dataclass(frozen=True)
class Validation:
    verdict: Verdict
    reason: str


def validate(
    new: Mapping[str, object], production: Mapping[str, object] | None, *, tolerance: float
) -> Validation:
    """Compare two models' figures, benchmark by benchmark; `production` is None while no model runs there.

    The share of right answers may fall by no more than `tolerance`, which is a share too (0.02 is two
    percentage points). A benchmark that production has and the new model lacks fails it, because nobody knows
    how good the model is there. A benchmark that only the new model has is not compared.

    Figures are read with care: something that is not a share counts as lacking. So a bad record of an earlier
    model neither ends the build nor decides anything. If nothing can be compared, the verdict is `unknown`.
    """
    if production is None:
        return Validation(Verdict.PASSED, "no model is in production yet")
    worse, compared = [], 0
    for name in sorted(production):
        decides = _deciding(production, name)
        if decides is None:
            continue
        figure, was = decides
        is_now = _share(new, name, figure)
        compared += 1
        if is_now is None:
            worse.append(f"{name}: {figure} is missing, in production {was:.1%}")
        elif is_now < was - tolerance:
            worse.append(f"{name}: {figure} {is_now:.1%}, in production {was:.1%}")
    if worse:
        return Validation(Verdict.FAILED, "; ".join(worse))
    if not compared:
        return Validation(Verdict.UNKNOWN, "the model in production has no figures to compare with")
    return Validation(
        Verdict.PASSED, f"none of {compared} common benchmarks fell by more than {tolerance:.1%}"
    )


def _deciding(metrics: Mapping[str, object], benchmark: str) -> tuple[str, float] | None:
    """The figure that decides about the benchmark, with its value. None if there is none."""
    for figure in _DECIDING:
        value = _share(metrics, benchmark, figure)
        if value is not None:
            return figure, value
    return None


def _share(metrics: Mapping[str, object], benchmark: str, figure: str) -> float | None:
    """The figure as a number from 0 to 1; None for everything else."""
    figures = metrics.get(benchmark)
    value = figures.get(figure) if isinstance(figures, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value) if 0 <= value <= 1 else None
