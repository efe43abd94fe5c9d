"""What a step is, and what it may end with."""

from abc import ABC, abstractmethod
from datetime import timedelta
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import Session

from app.registry import runs
from app.registry.runs import Lease, RunView
from app.words import StepName
from worker.workbench import Workbench


class Output(BaseModel):
    """What a step found or made; stored when it ends, shown by the API, read by later steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")


StepOutput = TypeVar("StepOutput", bound=Output)


class Step(ABC, Generic[StepOutput]):
    """One box of the flow: load, act, apply, and safe to repeat.

    `act` runs without an open session. It may die at any line and is then run again from its start, by
    this or another worker: it looks for what an earlier try left before it makes anything.
    """

    name: ClassVar[StepName]
    # From its first start on, over all tries and workers; None for what is never given up on.
    deadline: ClassVar[timedelta | None]
    output: ClassVar[type[Output]]

    @abstractmethod
    def act(self, run: RunView, work: Workbench) -> StepOutput:
        """Raises StepFailed; CloudUnavailable and RemoteLost are retried until the deadline."""

    def apply(self, session: Session, lease: Lease, output: StepOutput) -> None:
        """Store the output. Raises LeaseLost."""
        runs.finish_step(session, lease, self.name, output.model_dump(mode="json"))

    def tidy(self, run: RunView, work: Workbench) -> None:
        """After the output is stored, remove what only the step's own tries needed. A failure is let pass."""


def output_of(run: RunView, step: type[Step[StepOutput]]) -> StepOutput:
    """What an earlier step of the build stored."""
    stored: Any = step.output.model_validate(run.outputs[step.name])
    result: StepOutput = stored
    return result
