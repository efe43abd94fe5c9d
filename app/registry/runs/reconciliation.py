"""What a reconciliation found, and what the registry remembers of it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from sqlalchemy import ColumnElement, and_, func, select, true, update
from sqlalchemy.orm import Session

from app.db.tables import Artifact, Model
from app.registry.runs.lifecycle import LISTED
from app.words import MirrorDifference


@dataclass(frozen=True)
class Finding:
    """A key, or a whole prefix, that is not what it should be.

    `repaired` says whether it is now. `detail` says what was found, and why it was not repaired.
    """

    difference: MirrorDifference
    key: str
    detail: str
    repaired: bool = False


@dataclass
class Stray:
    """A prefix that the run was asked to delete: what was deleted, and why the rest of it was kept."""

    prefix: str
    objects: int = 0
    size_bytes: int = 0
    kept_because: str | None = None


@dataclass
class Report:
    """What was looked at and found. The counts are of everything; only the first findings are listed."""

    prefixes: int = 0
    objects: int = 0
    models: int = 0
    inputs: int = 0
    # Keys that wait in the outbox: the mirror will settle them, whatever they hold now.
    waiting: int = 0
    repaired: int = 0
    differences: dict[str, int] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    # What `delete_strays` named, in the order in which it was deleted.
    strays: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """The report that a worker before has stored, or an empty one."""
        known = {name: value for name, value in stored.items() if name in cls.__dataclass_fields__}
        return cls(**known)

    def add(self, found: Finding) -> None:
        self.differences[found.difference] = self.differences.get(found.difference, 0) + 1
        self.repaired += found.repaired
        if len(self.findings) < LISTED:
            self.findings.append(asdict(found))

    def record(self, stray: Stray) -> None:
        """A prefix that is begun anew is recorded once, with what was deleted before."""
        others = [one for one in self.strays if one["prefix"] != stray.prefix]
        self.strays = [*others, asdict(stray)]

    def recorded(self, prefix: str) -> Stray:
        """What was deleted under the prefix so far."""
        return next((Stray(**one) for one in self.strays if one["prefix"] == prefix), Stray(prefix))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def in_range(after: str, upto: str | None) -> ColumnElement[bool]:
    """The models with after < prefix/ <= upto, in the order in which S3 lists keys."""
    folder = (Model.prefix + "/").collate("C")
    return and_(folder > after, folder <= upto if upto is not None else true())


def count_models(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Model)) or 0


def remember(
    session: Session,
    *,
    missing: Iterable[str] = (),
    present: Iterable[str] = (),
    verified: Mapping[str, str] | None = None,
) -> None:
    """Record which artifacts' keys the bucket does not hold as recorded, and which it does hold again.

    `verified` are the ETags of objects whose content was compared with the digest. A model with a missing
    artifact is not handed out by `latest`, and the gates of the stages are closed to it.
    """
    gone = list(missing)
    if gone:
        session.execute(
            update(Artifact)
            .where(Artifact.key.in_(gone), Artifact.missing_since.is_(None))
            .values(missing_since=func.clock_timestamp())
        )
    back = list(present)
    if back:
        session.execute(
            update(Artifact)
            .where(Artifact.key.in_(back), Artifact.missing_since.is_not(None))
            .values(missing_since=None)
        )
    for key, etag in (verified or {}).items():
        session.execute(update(Artifact).where(Artifact.key == key).values(verified_etag=etag))
