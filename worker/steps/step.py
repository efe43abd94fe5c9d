"""What a step is."""

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
    """What a step found or made: stored when it ends, shown by the API, read by later steps.

    Fields that this version does not know are passed over: a newer worker may have stored them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")


StepOutput = TypeVar("StepOutput", bound=Output)


class Step(ABC, Generic[StepOutput]):
    """One step of a flow: load, act, apply, and safe to repeat.

    `act` runs without an open session. It may die at any line and is then run again from its start, by
    this or another worker: it looks for what an earlier try left before it makes anything.
    """

    name: ClassVar[StepName]
    # From its first start on, over all tries and workers; None for what is never given up on.
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
        """The build fails: remove what the step made outside the database, and nobody needs. It may fail."""

    def tidy(self, build: BuildView, work: Workbench) -> None:
        """After the output is stored, remove what only the step's own tries needed. It may fail."""


def output_of(build: BuildView, step: type[Step[StepOutput]]) -> StepOutput:
    """What an earlier step of the build stored."""
    stored: Any = step.output.model_validate(build.outputs[step.name])
    result: StepOutput = stored
    return result
