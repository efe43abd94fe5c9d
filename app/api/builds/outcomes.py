"""What came of a reproduction, as answers show it."""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, Field

from app.api.common import bounded
from app.api.common.shown import ShownInputKind, ShownPinned, ShownSameness
from app.registry.reproductions.outcomes import Outcome

# Names and messages come from machines, which may say anything.
Shown = Annotated[str, AfterValidator(bounded.text)]


class ChangedFigureOut(BaseModel):
    """A figure of a benchmark that differs. Null if that model lacks it."""

    benchmark: Shown
    figure: Shown
    recorded: float | None
    reproduced: float | None
    within_tolerance: bool


class ChangedInputOut(BaseModel):
    """An input that differs, by its digest, or by its origin if it has none. Null if it was not used."""

    kind: ShownInputKind
    name: Shown
    recorded: Shown | None
    used: Shown | None


class NotPinnedOut(BaseModel):
    """An input that could not be had as it was recorded, so that what is there now was used."""

    what: ShownPinned
    name: Shown
    reason: Shown


class NotRepairedOut(BaseModel):
    """A file of the model that the bucket lacks, and that was not put back."""

    name: Shown
    reason: Shown


class OutcomeOut(BaseModel):
    """How a model that was made again compares with the original."""

    verdict: ShownSameness = Field(
        description="`identical`: the weights have the same bytes. `equivalent`: the classes are the same, "
        "and every figure of every benchmark is within the tolerance. `different`: `findings` says why."
    )
    same_bytes: Shown | None = Field(
        description="What has the same bytes: `model.zip`, or only the weights in it, `target/model.pt`. "
        "Null if neither has.",
        examples=["model.zip"],
    )
    largest_difference: float | None = Field(
        description="The largest absolute difference of a single weight. Null where it is not known."
    )
    not_compared: Shown | None = Field(description="Why the weights could not be compared, if so.")
    tolerance: float = Field(description="How far each share in a benchmark could differ.")
    figures: list[ChangedFigureOut] = Field(description="The figures that differ.")
    inputs: list[ChangedInputOut] = Field(description="The inputs that differ.")
    not_pinned: list[NotPinnedOut] = Field(description="What could not be had as it was recorded.")
    findings: list[Shown] = Field(description="What differs, in sentences.")
    repaired: list[Shown] = Field(description="The files of the model that were put back into the bucket.")
    not_repaired: list[NotRepairedOut] = Field(
        description="The files of the model that a repair was asked for and could not put back."
    )

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        return cls.model_validate(outcome.model_dump())
