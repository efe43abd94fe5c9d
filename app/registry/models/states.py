"""What garbage collection leaves of a model: whether its files may be handed out, and why not."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from app.db.tables import Model
from app.registry.errors import ModelCollected, ModelMarked, NotKept
from app.words import ModelState


@dataclass(frozen=True)
class Mark:
    """That garbage collection has a model, since when, and why: a code for programs, a text for people."""

    state: ModelState
    since: datetime
    code: str
    text: str

    @classmethod
    def of(cls, state: str, since: datetime | None, reason: Mapping[str, Any] | None) -> Self | None:
        """None for a model that is kept. The arguments are the columns of its row."""
        if state == ModelState.KEPT or since is None:
            return None
        said = reason or {}
        return cls(
            ModelState(state), since, str(said.get("code", "unknown")), str(said.get("text", "unknown"))
        )

    @property
    def why(self) -> str:
        return f"{self.text} (marked at {self.since:%Y-%m-%dT%H:%M:%SZ})"

    def refusal(self, prefix: str) -> NotKept:
        """The error with which the model's files are refused."""
        if self.state.gone:
            message = (
                f"{prefix} was collected: {self.why}. Its files are deleted and cannot be restored. Its "
                f"record, lineage and provenance stay: GET /models/{prefix}."
            )
            kind: type[NotKept] = ModelCollected
        else:
            message = (
                f"{prefix} is marked for garbage collection: {self.why}. "
                f"POST /models/{prefix}/restore keeps it, until its files are deleted."
            )
            kind = ModelMarked
        return kind(message, prefix=prefix, state=self.state, since=self.since, reason=self.code)


def mark_of(model: Model) -> Mark | None:
    """None for a model that is kept."""
    return Mark.of(model.state, model.marked_at, model.mark_reason)


def refuse_unless_kept(model: Model) -> None:
    """Raises ModelMarked and ModelCollected."""
    if (mark := mark_of(model)) is not None:
        raise mark.refusal(model.prefix)


def refuse_gone(model: Model) -> None:
    """Raises ModelCollected. A marked model passes, because it can still be restored."""
    if (mark := mark_of(model)) is not None and mark.state.gone:
        raise mark.refusal(model.prefix)
