"""The validation of a new model: its benchmark figures against those of the model in production."""

from dataclasses import dataclass
from typing import Any

from app.words import Verdict


@dataclass(frozen=True)
class Validation:
    verdict: Verdict
    reason: str


def validate(new: dict[str, Any], production: dict[str, Any] | None, *, tolerance: float) -> Validation:
    """Compare two models' figures, benchmark by benchmark; `production` is None while no model runs there.

    The share of right answers may fall by no more than `tolerance`, which is a share too (0.02 is two
    percentage points). For a benchmark whose descriptions have codes, the right answers are `top_1`. For one
    whose descriptions deserve no code, they are `no_result`. A benchmark that only one of the two models ran
    is not compared.
    """
    if production is None:
        return Validation(Verdict.PASSED, "no model is in production yet")
    worse, compared = [], 0
    for name in sorted(new.keys() & production.keys()):
        both = new[name].keys() & production[name].keys()
        # For descriptions that have a code, a refusal counts as a mistake.
        figure = "top_1" if "top_1" in both else "no_result"
        if figure not in both:
            continue
        compared += 1
        is_now, was = float(new[name][figure]), float(production[name][figure])
        if is_now < was - tolerance:
            worse.append(f"{name}: {figure} {is_now:.1%}, in production {was:.1%}")
    if worse:
        return Validation(Verdict.FAILED, "; ".join(worse))
    return Validation(
        Verdict.PASSED, f"none of {compared} common benchmarks fell by more than {tolerance:.1%}"
    )
