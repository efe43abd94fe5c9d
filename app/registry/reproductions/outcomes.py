"""What is asked of a reproduction, and what came of it, as both are stored."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError


class _Stored(BaseModel):
    """Fields that this version does not know are ignored, because a newer one may have stored them."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Wanted(_Stored):
    """What a reproduction may do.

    For an input in `accept` that cannot be had as it was recorded any more, what is there now is used.
    `repair` puts lost files of the model back where the reproduction has made exactly the same, and
    `model_zip` allows this for model.zip too.
    """

    accept: tuple[str, ...] = ()
    repair: bool = False
    model_zip: bool = False

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> Self:
        return cls.model_validate(stored or {})


class NotPinned(_Stored):
    """An input that could not be had as it was recorded. `what` is a word of `Pinned`."""

    what: str
    name: str
    reason: str

    def __str__(self) -> str:
        named = self.what if self.what == self.name else f"{self.what} {self.name}"
        return f"{named}: {self.reason}"


class ChangedInput(_Stored):
    """An input that differs, by its digest, or by its origin if it has none. None if it was not used."""

    kind: str
    name: str
    recorded: str | None
    used: str | None


class ChangedFigure(_Stored):
    """A figure of a benchmark that differs. None if that model lacks it."""

    benchmark: str
    figure: str
    recorded: float | None
    reproduced: float | None
    within_tolerance: bool


class NotRepaired(_Stored):
    """A file of the model that is not as it was recorded, and that the reproduction has not put back."""

    name: str
    reason: str


class Outcome(_Stored):
    """How the reproduction compares with the original.

    `verdict` is a word of `Sameness`. `same_bytes` names what has the same bytes in both: `model.zip`, or
    only `target/model.pt`, the weights inside; it is None if neither has. `largest_difference` is that of a
    single weight, and None where it is not known: `not_compared` says why then. `findings` are sentences.
    """

    verdict: str
    same_bytes: str | None = None
    largest_difference: float | None = None
    not_compared: str | None = None
    tolerance: float
    figures: tuple[ChangedFigure, ...] = ()
    inputs: tuple[ChangedInput, ...] = ()
    not_pinned: tuple[NotPinned, ...] = ()
    findings: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    not_repaired: tuple[NotRepaired, ...] = ()

    @classmethod
    def read(cls, stored: Mapping[str, Any] | None) -> Self | None:
        """None if there is none, or if this version cannot read it."""
        try:
            return None if stored is None else cls.model_validate(stored)
        except ValidationError:
            return None
