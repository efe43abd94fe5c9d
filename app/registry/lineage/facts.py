"""What differs between the software, the hardware and the switches with which two models were made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import BuildInput
from app.registry import environments
from app.registry.inputs import INSTANCE_TYPE, TRAINING_MACHINE
from app.words import FileChange, InputKind

# How many packages are told.
MOST_PACKAGES = 200

Fact = str | int | float | bool

# The inputs that consist of facts, and what to say if they are not known. Those of the hardware are told
# apart by their names.
_GROUPS = {
    (InputKind.HARDWARE, INSTANCE_TYPE): "The instance type of {} is not known.",
    (InputKind.HARDWARE, TRAINING_MACHINE): "The processor and the GPU of {} are not known.",
    (InputKind.TRANSFORMER, None): "The revision of the transformer of {} is not known.",
    (InputKind.PYTHON_ENVIRONMENT, None): "The Python environment of {} is not known.",
    (InputKind.DETERMINISM, None): "The switches for determinism of {} are not known.",
}
# How many packages there are follows from the packages.
_LEFT_OUT = (InputKind.PYTHON_ENVIRONMENT, "packages")


@dataclass(frozen=True)
class FactDifference:
    """A fact that differs, such as the seed. None if that model lacks it."""

    kind: InputKind
    fact: str
    this: Fact | None
    other: Fact | None


@dataclass(frozen=True)
class PackageDifference:
    """A package that differs, with its versions. None if that model was trained without it."""

    name: str
    change: FileChange
    version: str | None
    other_version: str | None


@dataclass(frozen=True)
class Side:
    """One of two models that are compared, and its build."""

    prefix: str
    build_id: UUID


@dataclass(frozen=True)
class FactsCompared:
    """`packages` are the first by name, and `packages_total` counts all of them."""

    facts: tuple[FactDifference, ...]
    packages: tuple[PackageDifference, ...]
    packages_total: int
    not_known: tuple[str, ...]


_Group = tuple[InputKind, str | None]


def compare(session: Session, this: Side, other: Side) -> FactsCompared:
    """What differs, of what was recorded of both models."""
    known = {side: _facts(session, side.build_id) for side in (this, other)}
    facts: list[FactDifference] = []
    not_known = []
    for group, sentence in _GROUPS.items():
        lacking = [side.prefix for side in (this, other) if group not in known[side]]
        if lacking:
            not_known.append(sentence.format(" and ".join(lacking)))
        else:
            facts.extend(_differing(group[0], known[this][group], known[other][group]))
    mine, theirs = (environments.of_build(session, side.build_id) for side in (this, other))
    changed: list[PackageDifference] = []
    if mine is not None and theirs is not None:
        changed = list(_changed(mine.packages, theirs.packages))
    else:
        lacking = [side.prefix for side, found in ((this, mine), (other, theirs)) if found is None]
        not_known.append(f"The packages of {' and '.join(lacking)} are not known.")
    return FactsCompared(tuple(facts), tuple(changed[:MOST_PACKAGES]), len(changed), tuple(not_known))


def _facts(session: Session, build_id: UUID) -> dict[_Group, dict[str, Fact]]:
    """Each group that was recorded with details."""
    found: dict[_Group, dict[str, Fact]] = {}
    rows = session.scalars(
        select(BuildInput)
        .where(BuildInput.build_id == build_id, BuildInput.kind.in_({kind for kind, _ in _GROUPS}))
        .order_by(BuildInput.kind, BuildInput.name.desc())
    )
    for row in rows:
        kind = InputKind(row.kind)
        group = (kind, row.name if kind is InputKind.HARDWARE else None)
        if not row.details:
            continue
        # A benchmark in an environment of its own is named after that of the training, which comes last.
        found[group] = {
            name: value
            for name, value in row.details.items()
            if isinstance(value, str | int | float) and (kind, name) != _LEFT_OUT
        }
        if kind is InputKind.TRANSFORMER:
            found[group]["name"] = row.name
    return found


def _differing(
    kind: InputKind, this: Mapping[str, Fact], other: Mapping[str, Fact]
) -> Iterator[FactDifference]:
    for name in sorted({*this, *other}):
        if this.get(name) != other.get(name):
            yield FactDifference(kind, name, this.get(name), other.get(name))


def _changed(this: Mapping[str, str], other: Mapping[str, str]) -> Iterator[PackageDifference]:
    for name in sorted({*this, *other}):
        version, other_version = this.get(name), other.get(name)
        if version != other_version:
            change = (
                FileChange.ADDED
                if other_version is None
                else FileChange.REMOVED
                if version is None
                else FileChange.CHANGED
            )
            yield PackageDifference(name, change, version, other_version)
