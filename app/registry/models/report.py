"""The report of a validation, as `check_result.json` and the API show it."""

import json
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from app.db.storable import text_of
from app.registry.models.changes import Changed, Changes, Moved
from app.registry.models.thresholds import Limits
from app.registry.models.validation import Baseline, Comparison, DataComparison, Validation, Why
from app.words import Breach, Direction, Verdict

SCHEMA = 1

# Words are texts, because another release may know others.
WhyWord = Annotated[str, WithJsonSchema({"type": "string", "enum": list(Why)})]
DirectionWord = Annotated[str, WithJsonSchema({"type": "string", "enum": list(Direction)})]
BreachWord = Annotated[str, WithJsonSchema({"type": "string", "enum": list(Breach)})]
VerdictWord = Annotated[str, WithJsonSchema({"type": "string", "enum": list(Verdict)})]


class _Part(BaseModel):
    """What another release adds is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ReportedBaseline(_Part):
    """The model that the new one was compared with."""

    prefix: str = Field(examples=["0.0.1-11ce0f5"])
    why: WhyWord = Field(description="It runs in production, or is the newest model that passed.")


class ReportedLimits(_Part):
    """From how much worse on a change is a high, medium or low breach. Null where it never is."""

    high: float | None
    medium: float | None
    low: float | None

    @classmethod
    def of(cls, limits: Limits) -> Self:
        return cls(high=limits.high, medium=limits.medium, low=limits.low)


class ReportedComparison(_Part):
    """A figure of a benchmark beside that of the baseline."""

    threshold: str = Field(description="The name of the threshold.", examples=["Right answers"])
    benchmark: str = Field(examples=["everyday"])
    metric: str = Field(examples=["top_1"])
    direction: DirectionWord = Field(description="Which way the figure gets better.")
    old: float = Field(description="The baseline's figure, a share from 0 to 1.")
    new: float | None = Field(description="The new model's figure. Null if it has none, which fails it.")
    difference: float | None = Field(description="`new` minus `old`, in percentage points.")
    limits: ReportedLimits = Field(description="In percentage points.")
    breach: BreachWord | None = Field(description="Null if the figure did not get too much worse.")

    @classmethod
    def of(cls, one: Comparison) -> Self:
        return cls(
            threshold=one.threshold,
            benchmark=one.benchmark,
            metric=one.metric,
            direction=one.direction,
            old=one.old,
            new=one.new,
            difference=one.difference,
            limits=ReportedLimits.of(one.limits),
            breach=one.breach,
        )


class ReportedData(_Part):
    """How much of something the model was trained on, beside the baseline."""

    what: str = Field(examples=["rows", "classes", "rows of cn"])
    old: int
    new: int
    fewer: float = Field(description="How much less there is, in percent. Negative if there is more.")
    limits: ReportedLimits = Field(description="In percent.")
    breach: BreachWord | None

    @classmethod
    def of(cls, one: DataComparison) -> Self:
        return cls(
            what=one.what,
            old=one.old,
            new=one.new,
            fewer=one.fewer,
            limits=ReportedLimits.of(one.limits),
            breach=one.breach,
        )


_LONGEST_DESCRIPTION = 300


class ChangedDescription(_Part):
    """A description whose right code moved. A place is null if the code was not among the answers."""

    description: str
    code: str = Field(description="The right code. If there are several, the first of them.")
    old_place: int | None
    new_place: int | None

    @classmethod
    def of(cls, one: Changed) -> Self:
        return cls(
            description=text_of(one.description, _LONGEST_DESCRIPTION),
            code=text_of(one.code, _LONGEST_DESCRIPTION),
            old_place=one.old_place,
            new_place=one.new_place,
        )


class ChangedDescriptions(_Part):
    """Descriptions whose right code moved into or out of some first places, and the first of them by name."""

    count: int
    first: list[ChangedDescription]

    @classmethod
    def of(cls, moved: Moved) -> Self:
        return cls(count=moved.count, first=[ChangedDescription.of(one) for one in moved.first])


class BenchmarkChanges(_Part):
    """Which right codes entered and left the first place, and the first five."""

    benchmark: str
    compared: int = Field(description="How many descriptions both models answered.")
    entered_first: ChangedDescriptions
    left_first: ChangedDescriptions
    entered_first_five: ChangedDescriptions
    left_first_five: ChangedDescriptions

    @classmethod
    def of(cls, changes: Changes) -> Self:
        return cls(
            benchmark=text_of(changes.benchmark, _LONGEST_DESCRIPTION),
            compared=changes.compared,
            entered_first=ChangedDescriptions.of(changes.entered_first),
            left_first=ChangedDescriptions.of(changes.left_first),
            entered_first_five=ChangedDescriptions.of(changes.entered_first_five),
            left_first_five=ChangedDescriptions.of(changes.left_first_five),
        )


class Report(_Part):
    """What the validation compared and found. It stays as it is when somebody changes the verdict."""

    prefix: str
    verdict: VerdictWord
    reason: str
    baseline: ReportedBaseline | None = Field(description="Null if there was nothing to compare with.")
    comparisons: list[ReportedComparison] = Field(description="The worst breaches come first.")
    data: list[ReportedData]
    failures: list[str] = Field(description="Each of these fails the model.")
    warnings: list[str]
    mentioned: list[str] = Field(description="Changes that do not matter for the verdict.")
    descriptions: list[BenchmarkChanges]
    descriptions_problem: str | None = Field(
        description="Why descriptions could not be compared, which does not matter for the verdict. Null if "
        "they were, and if there was no baseline."
    )

    @classmethod
    def of(cls, prefix: str, baseline: Baseline | None, found: Validation) -> Self:
        """The report without its descriptions."""
        return cls(
            prefix=prefix,
            verdict=found.verdict,
            reason=found.reason,
            baseline=None if baseline is None else ReportedBaseline(prefix=baseline.prefix, why=baseline.why),
            comparisons=[ReportedComparison.of(one) for one in found.comparisons],
            data=[ReportedData.of(one) for one in found.data],
            failures=list(found.failures),
            warnings=list(found.warnings),
            mentioned=list(found.mentioned),
            descriptions=[],
            descriptions_problem=None,
        )

    def to_json(self) -> str:
        """The content of `check_result.json`."""
        whole = {"schema": SCHEMA, **self.model_dump(mode="json")}
        return json.dumps(whole, ensure_ascii=False, indent=2) + "\n"
