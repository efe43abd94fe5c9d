"""The verdict: the new model against the one in production."""

from datetime import timedelta
from typing import Any, ClassVar

from app.registry import stages
from app.registry.runs import RunView
from app.words import Stage, StepName, Verdict
from worker.steps.job import Benchmark
from worker.steps.step import Output, Step, output_of
from worker.workbench import Workbench


class Validated(Output):
    verdict: Verdict
    reason: str
    # The prefix in production that it was compared with.
    against: str | None


class Validate(Step[Validated]):
    name: ClassVar = StepName.VALIDATE
    deadline: ClassVar = timedelta(minutes=10)
    output: ClassVar = Validated

    def act(self, run: RunView, work: Workbench) -> Validated:
        with work.transaction() as session:
            production = stages.running(session, Stage.PRODUCTION)
        metrics = output_of(run, Benchmark).metrics
        if production is None:
            return Validated(verdict=Verdict.PASSED, reason="no model is in production yet", against=None)
        verdict, reason = compare(metrics, production.metrics, work.settings.accuracy_tolerance)
        return Validated(verdict=verdict, reason=reason, against=production.prefix)


def compare(new: dict[str, Any], old: dict[str, Any], tolerance: float) -> tuple[Verdict, str]:
    """Benchmark by benchmark: the share that is right may fall by no more than `tolerance`.

    What is right is `top_1` of a benchmark whose descriptions have codes, and `no_result` of one whose
    descriptions deserve none. A benchmark that only one of the two models ran is not compared.
    """
    worse, compared = [], 0
    for name in sorted(new.keys() & old.keys()):
        figure = "top_1" if "top_1" in new[name] and "top_1" in old[name] else "no_result"
        if figure not in new[name] or figure not in old[name]:
            continue
        compared += 1
        is_now, was = float(new[name][figure]), float(old[name][figure])
        if is_now < was - tolerance:
            worse.append(f"{name}: {figure} {is_now:.1%}, in production {was:.1%}")
    if worse:
        return Verdict.FAILED, "; ".join(worse)
    return Verdict.PASSED, f"none of {compared} common benchmarks fell by more than {tolerance:.1%}"
