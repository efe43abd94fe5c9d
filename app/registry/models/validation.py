"""The validation of a new model: its figures and its data against those of a baseline.

These rules are pure. `thresholds.py` says how much worse a model may be, and
`app/registry/stages/baseline.py` finds what it is compared with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from app.registry.models.figures import measurement_of, number
from app.registry.models.thresholds import (
    ANSWERED,
    EVERY_BENCHMARK,
    FIGURES,
    RIGHT,
    Limits,
    Rules,
    Threshold,
    counterpart,
)
from app.words import Breach, Direction, Verdict

# For descriptions that have a code, a refusal counts as a mistake. For those that deserve no code, a refusal
# is the right answer. So the share of right answers is the first of these that the baseline has.
_RIGHT = ("top_1", "no_result")
# The names of benchmarks, figures and sources come from a machine. A report names and lists only so much.
_LONGEST_NAME = 100
MOST_LISTED = 200
_MOST_IN_REASON = 10


@dataclass(frozen=True)
class Evidence:
    """What there is to judge a model by: the figures of its benchmarks, and what it was trained on.

    Both are read with care, because a machine, or an earlier release, wrote them.
    """

    metrics: Mapping[str, object]
    counts: Mapping[str, object] = field(default_factory=dict)


class Why(StrEnum):
    """Why a model is the baseline."""

    PRODUCTION = "production"
    NEWEST_PASSED = "newest_passed"


@dataclass(frozen=True)
class Baseline:
    """A model to compare with, and what there is to judge it by."""

    prefix: str
    why: Why
    evidence: Evidence

    def __str__(self) -> str:
        """As messages name it."""
        if self.why is Why.PRODUCTION:
            return f"{self.prefix} in production"
        return f"{self.prefix}, the newest model that passed"


@dataclass(frozen=True)
class Comparison:
    """One figure of a benchmark, compared.

    Figures are shares. The difference and the limits are in percentage points.
    """

    threshold: str
    benchmark: str
    metric: str
    direction: Direction
    old: float
    new: float | None
    difference: float | None
    limits: Limits
    breach: Breach | None


@dataclass(frozen=True)
class DataComparison:
    """How much of something the models were trained on. `fewer` and the limits are percent."""

    what: str
    old: int
    new: int
    fewer: float
    limits: Limits
    breach: Breach | None


@dataclass(frozen=True)
class Validation:
    """The verdict with everything that led to it. The texts are whole sentences without their full stops."""

    verdict: Verdict
    reason: str
    comparisons: tuple[Comparison, ...] = ()
    data: tuple[DataComparison, ...] = ()
    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    mentioned: tuple[str, ...] = ()


def validate(new: Evidence, baseline: Baseline | None, rules: Rules) -> Validation:
    """Judge a new model.

    A high breach of a threshold fails the model, a medium one is a warning, and a low one is mentioned. A
    benchmark, or a figure that a threshold asks for, which only the baseline has fails the model too, because
    nobody knows how good it is there. Figures that were measured in different ways are not compared. If no
    figure can be compared, the verdict is `unknown`. Without a baseline, only the data is judged.

    Something that is not a share from 0 to 1 counts as lacking. So a bad record of an earlier model neither
    ends the build nor decides anything.
    """
    findings = _Findings()
    _judge_data(findings, new.counts, {} if baseline is None else baseline.evidence.counts, rules)
    if baseline is not None:
        _judge_benchmarks(findings, new.metrics, baseline, rules.thresholds)
    verdict = Verdict.PASSED
    if findings.said[Breach.HIGH]:
        verdict = Verdict.FAILED
    elif baseline is not None and not findings.comparisons:
        verdict = Verdict.UNKNOWN
    return findings.whole(verdict, _reason(findings, verdict, baseline))


class _Findings:
    """What was found so far."""

    def __init__(self) -> None:
        self.comparisons: list[Comparison] = []
        self.data: list[DataComparison] = []
        self.said: dict[Breach, list[str]] = {breach: [] for breach in Breach}

    def say(self, breach: Breach | None, message: str) -> None:
        if breach is not None:
            self.said[breach].append(message)

    def whole(self, verdict: Verdict, reason: str) -> Validation:
        order = list(Breach)
        compared = sorted(
            self.comparisons, key=lambda one: len(order) if one.breach is None else order.index(one.breach)
        )
        return Validation(
            verdict,
            reason,
            tuple(compared[:MOST_LISTED]),
            tuple(self.data[:MOST_LISTED]),
            *(tuple(_first(self.said[breach], MOST_LISTED)) for breach in Breach),
        )


def _reason(findings: _Findings, verdict: Verdict, against: Baseline | None) -> str:
    failures, warnings = findings.said[Breach.HIGH], findings.said[Breach.MEDIUM]
    if verdict is Verdict.FAILED:
        return "; ".join(_first(failures, _MOST_IN_REASON))
    if against is None:
        reason = "no model is in production and none has passed yet, so there is nothing to compare with"
    elif verdict is Verdict.UNKNOWN:
        reason = f"{against} has no figures that this model's can be compared with"
    else:
        reason = f"no figure got too much worse, of {len(findings.comparisons)} compared with {against}"
    if not warnings:
        return reason
    return f"{reason}; warnings: {'; '.join(_first(warnings, _MOST_IN_REASON))}"


def _first(items: Sequence[str], count: int) -> list[str]:
    left_out = len(items) - count
    return [*items[:count], *([f"and {left_out:,} more"] if left_out > 0 else [])]


def _judge_benchmarks(
    findings: _Findings,
    new: Mapping[str, object],
    against: Baseline,
    thresholds: Sequence[Threshold],
) -> None:
    old = against.evidence.metrics
    measured = [name for name in sorted(old) if _has_figures(old, name)]
    for name in measured:
        shown, here = _shown(name), _counterpart(new, name)
        if here is None:
            findings.say(Breach.HIGH, f"the benchmark {shown} is missing, which {against} has")
        elif (was := measurement_of(old.get(name))) != (now := measurement_of(new.get(here))):
            findings.say(
                Breach.MEDIUM,
                f"{shown} was measured in another way (version {now}, and {was} for {against}), so its "
                "figures are not compared",
            )
        else:
            _mention_size(findings, new, here, old, name)
            for threshold in thresholds:
                if threshold.selects(name):
                    _compare(findings, threshold, new, here, old, name)
    for threshold in thresholds:
        if threshold.benchmark != EVERY_BENCHMARK and not any(map(threshold.selects, measured)):
            findings.say(
                Breach.LOW,
                f"the threshold {_shown(threshold.name)} is for the benchmark {_shown(threshold.benchmark)}, "
                f"which {against} does not have",
            )


def _compare(
    findings: _Findings,
    threshold: Threshold,
    new: Mapping[str, object],
    here: str,
    old: Mapping[str, object],
    name: str,
) -> None:
    metric = threshold.metric
    if metric == RIGHT:
        metric = next((one for one in _RIGHT if _share(old, name, one) is not None), RIGHT)
    was, now = _share(old, name, metric), _share(new, here, metric)
    if was is None:
        if threshold.benchmark != EVERY_BENCHMARK:
            said = f"{_shown(name)}: there is no earlier {metric} to compare with ({_shown(threshold.name)})"
            findings.say(Breach.LOW, said)
        return
    difference = worse = None
    breach: Breach | None = Breach.HIGH
    what = f"{_shown(name)}: {metric}"
    if now is None:
        findings.say(breach, f"{what} is missing, and was {was:.1%}")
    else:
        difference = round((now - was) * 100, 6)
        worse = -difference if threshold.direction is Direction.INCREASE_IS_GOOD else difference
        breach = threshold.limits.breach(worse)
        findings.say(breach, f"{what} is {now:.1%}, and was {was:.1%} ({_shown(threshold.name)})")
    compared = Comparison(
        threshold.name, name, metric, threshold.direction, was, now, difference, threshold.limits, breach
    )
    findings.comparisons.append(compared)


def _mention_size(
    findings: _Findings, new: Mapping[str, object], here: str, old: Mapping[str, object], name: str
) -> None:
    """Figures of other descriptions can be compared, but whoever reads them should know."""
    was, now = number(_figures(old, name).get("count")), number(_figures(new, here).get("count"))
    if was is not None and now is not None and was != now:
        findings.say(Breach.LOW, f"{_shown(name)} had {was:,.0f} descriptions, and now has {now:,.0f}")


def _judge_data(
    findings: _Findings, new: Mapping[str, object], old: Mapping[str, object], rules: Rules
) -> None:
    of_data = rules.data
    for what, key, limits, fewest in (
        ("rows", "pairs", of_data.rows, of_data.fewest_rows),
        ("classes", "classes", of_data.classes, of_data.fewest_classes),
    ):
        now, was = _count(new, key), _count(old, key)
        if now is None:
            findings.say(Breach.MEDIUM, f"the training did not report its number of {what}")
            continue
        if now < fewest:
            findings.say(Breach.HIGH, f"the training had {now:,} {what}, and {fewest:,} are needed")
        if was:
            _compare_data(findings, what, was, now, limits)
    there, here = _sources(old), _sources(new)
    if there and not here:
        findings.say(Breach.LOW, "the training did not report its rows by source")
        return
    for source, rows in there.items():
        if rows:
            what = f"rows of {_shown(source)}"
            _compare_data(findings, what, rows, here.get(source, 0), of_data.source_rows)


def _compare_data(findings: _Findings, what: str, was: int, now: int, limits: Limits) -> None:
    fewer = round((was - now) / was * 100, 6)
    breach = limits.breach(fewer)
    findings.say(breach, f"the training had {now:,} {what}, and the baseline's had {was:,}")
    findings.data.append(DataComparison(what, was, now, fewer, limits, breach))


def _sources(counts: Mapping[str, object]) -> dict[str, int]:
    """The number of rows by source."""
    found = counts.get("sources")
    if not isinstance(found, Mapping):
        return {}
    rows = {str(name): _count(found, name) for name in sorted(found, key=str)}
    return {name: count for name, count in rows.items() if count is not None}


def _counterpart(metrics: Mapping[str, object], benchmark: str) -> str | None:
    """The benchmark of the same name, or else of the same name in existing tools, if it has any figure."""
    return counterpart(benchmark, [name for name in metrics if _has_figures(metrics, name)])


def _has_figures(metrics: Mapping[str, object], benchmark: str) -> bool:
    return any(_share(metrics, benchmark, figure) is not None for figure in FIGURES)


def _share(metrics: Mapping[str, object], benchmark: str, figure: str) -> float | None:
    """The figure as a number from 0 to 1; None for everything else."""
    if figure == ANSWERED:
        refused = _share(metrics, benchmark, "no_result")
        return None if refused is None else round(1 - refused, 9)
    value = number(_figures(metrics, benchmark).get(figure))
    return value if value is not None and 0 <= value <= 1 else None


def _figures(metrics: Mapping[str, object], benchmark: str) -> Mapping[str, object]:
    figures = metrics.get(benchmark)
    return figures if isinstance(figures, Mapping) else {}


def _count(counts: Mapping[str, object], key: str) -> int | None:
    value = number(counts.get(key))
    return int(value) if value is not None and value >= 0 and value.is_integer() else None


def _shown(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
