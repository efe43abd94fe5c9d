"""What a collection has found and done, as its run reports it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from app.registry.runs.lifecycle import LISTED


@dataclass
class Report:
    """What a collection did, or, for a dry run, would do now. Counts are of everything.

    `doomed` are the models that the plan says may go, marked ones included, and `due` those of them whose
    grace period is over. `marked` were newly marked by this run. `restored` have lost their mark, because
    something keeps them again. `postponed` would be due, but too little is known of them at the moment.
    `refused` are those that the database keeps, whatever the plan says. `freed` are prefixes whose objects
    were deleted.
    """

    dry_run: bool = False
    plan_digest: str | None = None
    models: int = 0
    kept: int = 0
    kept_bytes: int = 0
    doomed: int = 0
    doomed_bytes: int = 0
    due: int = 0
    too_large: bool = False
    marked: int = 0
    restored: int = 0
    postponed: int = 0
    refused: int = 0
    freed: int = 0
    freed_objects: int = 0
    freed_bytes: int = 0
    inputs_kept: int = 0
    inputs_kept_bytes: int = 0
    inputs_freed: int = 0
    inputs_freed_bytes: int = 0
    unpublished_freed: int = 0
    unpublished_freed_bytes: int = 0
    marked_prefixes: list[dict[str, str]] = field(default_factory=list)
    restored_prefixes: list[dict[str, str]] = field(default_factory=list)
    refused_prefixes: list[dict[str, str]] = field(default_factory=list)
    freed_prefixes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """The report that a worker before has stored, or an empty one."""
        return cls(**{name: value for name, value in stored.items() if name in cls.__dataclass_fields__})

    def mark(self, prefix: str, reason: str) -> None:
        self.marked += 1
        _list(self.marked_prefixes, {"prefix": prefix, "reason": reason})

    def restore(self, prefix: str, reason: str) -> None:
        self.restored += 1
        _list(self.restored_prefixes, {"prefix": prefix, "reason": reason})

    def refuse(self, prefix: str, reason: str) -> None:
        self.refused += 1
        _list(self.refused_prefixes, {"prefix": prefix, "reason": reason})

    def free(self, prefix: str, size_bytes: int) -> None:
        self.freed += 1
        self.freed_bytes += size_bytes
        if len(self.freed_prefixes) < LISTED:
            self.freed_prefixes.append(prefix)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def _list(found: list[dict[str, str]], one: dict[str, str]) -> None:
    if len(found) < LISTED:
        found.append(one)
