"""Compares the new model with the model in production."""

from datetime import timedelta
from typing import ClassVar

from app.registry.builds.steps import BuildView
from app.registry.models import validation
from app.registry.stages import history
from app.words import Stage, StepName, Verdict
from worker.retry import Patience
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
    patience: ClassVar = Patience.FROM_THE_TRAINING_ON
    output: ClassVar = Validated

    def act(self, build: BuildView, work: Workbench) -> Validated:
        with work.transaction() as session:
            production = history.running(session, Stage.PRODUCTION)
        found = validation.validate(
            output_of(build, Benchmark).metrics,
            None if production is None else production.metrics,
            tolerance=work.settings.accuracy_tolerance,
        )
        return Validated(
            verdict=found.verdict,
            reason=found.reason,
            against=None if production is None else production.prefix,
        )
