"""The base class of all steps and of their outputs."""

from abc import ABC, abstractmethod
from datetime import timedelta
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import Session

from app.registry.builds import steps
from app.registry.builds.lease import Lease
from app.registry.builds.steps import BuildView
from app.words import StepName
from worker.retry import Patience
from worker.workbench import Workbench


class Output(BaseModel):
    """The result of a step. It is stored when the step ends, shown by the API, and read by later steps.

    Fields that this version does not know are ignored, because a newer worker may have stored them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")


StepOutput = TypeVar("StepOutput", bound=Output)


class Step(ABC, Generic[StepOutput]):
    """One step of a flow. It loads, acts and applies, and can be repeated safely.

    `act` runs without an open session. If it dies at any line, this or another worker runs it again from its
    start. So it looks for what an earlier try left before it makes anything.
    """

    name: ClassVar[StepName]
    # Counted over all tries and workers. None means that the step is retried without limit.
    deadline: ClassVar[timedelta | None]
    patience: ClassVar[Patience] = Patience.BEFORE_THE_TRAINING
    output: ClassVar[type[Output]]

    @abstractmethod
    def act(self, build: BuildView, work: Workbench) -> StepOutput:
        """Raises StepFailed. Errors that the step's patience covers are retried until the deadline."""

    def apply(self, session: Session, lease: Lease, output: StepOutput) -> None:
        """Store the output. Raises LeaseLost."""
        steps.finish(session, lease, self.name, output.model_dump(mode="json"))

    def undo(self, build: BuildView, work: Workbench) -> None:
        """Called when the build fails: remove what the step made outside the database. This may fail."""

    def tidy(self, build: BuildView, work: Workbench) -> None:
        """Called after the output is stored: remove what only the step itself needed. This may fail."""


def output_of(build: BuildView, step: type[Step[StepOutput]]) -> StepOutput:
    """The output that an earlier step of the build stored."""
    stored: Any = step.output.model_validate(build.outputs[step.name])
    result: StepOutput = stored
    return result
