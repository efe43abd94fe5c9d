"""Compares the new model with its baseline."""

from datetime import timedelta
from typing import ClassVar

from app.registry.builds.steps import BuildView
from app.registry.models import thresholds, validation
from app.registry.models.report import Report
from app.registry.models.thresholds import Rules
from app.registry.models.validation import Evidence
from app.registry.stages import baseline
from app.words import StepName, Verdict
from training.config import ConfigError
from worker.retry import Patience
from worker.steps.job import Benchmark, Train
from worker.steps.step import Output, Step, output_of
from worker.workbench import Workbench


class Validated(Output):
    """`against` is the baseline's prefix. The report has no descriptions yet, as those need S3.

    A worker of the release before made no report.
    """

    verdict: Verdict
    reason: str
    against: str | None
    report: Report | None = None


class Validate(Step[Validated]):
    name: ClassVar = StepName.VALIDATE
    deadline: ClassVar = timedelta(minutes=10)
    patience: ClassVar = Patience.FROM_THE_TRAINING_ON
    output: ClassVar = Validated

    def act(self, build: BuildView, work: Workbench) -> Validated:
        with work.transaction() as session:
            compared = baseline.find(session)
        found = validation.validate(
            Evidence(output_of(build, Benchmark).metrics, output_of(build, Train).counts),
            compared,
            self._rules(build, work),
        )
        return Validated(
            verdict=found.verdict,
            reason=found.reason,
            against=None if compared is None else compared.prefix,
            report=Report.of(build.prefix, compared, found),
        )

    def _rules(self, build: BuildView, work: Workbench) -> Rules:
        tolerance = work.settings.accuracy_tolerance
        try:
            return thresholds.rules_of(build.thresholds, tolerance)
        except ConfigError as exc:
            # They were checked when they were posted, by a release that knows more or other keys.
            work.log(f"The posted thresholds cannot be read here ({exc}). The registry's own are used.")
            return thresholds.default_rules(tolerance)
