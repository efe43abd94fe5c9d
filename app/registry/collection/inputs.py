"""Which inputs the bucket need not keep any more, and what has become of those that were deleted.

Only rows are looked at, never a listing of the bucket: every content that is there was recorded before. The
rows stay for ever, because the lineage of models names them.

A content is needed while an active build uses it, or one that an active build repeats; while a build that
used it can be retried; and while it was used for a model that can still be handed out or restored, or that
is being made again.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, exists, func, literal, or_, select, update
from sqlalchemy.orm import Session

from app.db.tables import ACTIVE_BUILD, Build, BuildInput, Input, Model
from app.registry.builds import retries
from app.registry.reproductions import history
from app.words import ModelState


@dataclass(frozen=True)
class Unneeded:
    """A content that nothing needs."""

    sha256: str
    size_bytes: int


def unneeded(session: Session, retry_window: timedelta, after: str, limit: int) -> list[Unneeded]:
    """The first contents in the bucket that nothing needs and whose digests come after `after`."""
    query = (
        select(Input.sha256, func.coalesce(Input.size_bytes, 0))
        .where(_in_the_bucket(), Input.sha256 > after, ~_needed(retry_window))
        .order_by(Input.sha256)
        .limit(limit)
    )
    return [Unneeded(*row) for row in session.execute(query)]


def begin_sweep(session: Session, sha256s: Collection[str], retry_window: timedelta) -> set[str]:
    """From the commit on, the contents that this returns may be deleted.

    A row that somebody else has locked is left out: a build records a use of it at this moment.
    """
    locked = _locked(session, sha256s, Input.sweeping_at.is_(None))
    # Another statement, which sees what was committed before the rows were locked.
    going = set(session.scalars(select(Input.sha256).where(Input.sha256.in_(locked), ~_needed(retry_window))))
    _set_sweeping(session, going)
    return going


def half_swept(session: Session, limit: int) -> list[Unneeded]:
    """The first contents whose deletion has begun and is not known to be done."""
    query = (
        select(Input.sha256, func.coalesce(Input.size_bytes, 0))
        .where(_sweeping())
        .order_by(Input.sha256)
        .limit(limit)
    )
    return [Unneeded(*row) for row in session.execute(query)]


def sweep_again(session: Session, sha256s: Collection[str]) -> set[str]:
    """Those of the half-swept contents that may be deleted now. A build may have put others there again."""
    going = set(_locked(session, sha256s, _sweeping()))
    _set_sweeping(session, going)
    return going


def collected(session: Session, sha256s: Collection[str]) -> None:
    """Record that the contents are gone."""
    session.execute(
        update(Input)
        .where(Input.sha256.in_(sha256s), _sweeping())
        .values(collected_at=func.clock_timestamp())
    )


@dataclass(frozen=True)
class Kept:
    """How many contents the bucket holds, and how many bytes they have."""

    count: int
    size_bytes: int


def kept(session: Session) -> Kept:
    count, size_bytes = session.execute(
        select(func.count(), func.coalesce(func.sum(Input.size_bytes), 0)).where(_in_the_bucket())
    ).one()
    return Kept(count or 0, int(size_bytes or 0))


def _in_the_bucket() -> ColumnElement[bool]:
    """Whether the bucket may hold the content. Of some inputs, only the digest was ever known."""
    # A worker of the release before records no beginning.
    put = or_(Input.upload_begun_at.is_not(None), Input.stored_at.is_not(None))
    return and_(put, Input.sweeping_at.is_(None))


def _sweeping() -> ColumnElement[bool]:
    return and_(Input.sweeping_at.is_not(None), Input.collected_at.is_(None))


def _needed(retry_window: timedelta) -> ColumnElement[bool]:
    since = func.clock_timestamp() - literal(retry_window)
    made_a_model = exists().where(
        Model.build_id == Build.id,
        or_(
            Model.state.in_([ModelState.KEPT, ModelState.MARKED]),
            # Also of a collected model, until its reproduction has recorded that it uses them too.
            Model.id.in_(history.reproduced_now()),
        ),
    )
    used = exists().where(
        BuildInput.sha256 == Input.sha256,
        Build.id == BuildInput.build_id,
        or_(
            ACTIVE_BUILD,
            Build.finished_at > since,
            Build.id.in_(retries.being_repeated()),
            made_a_model,
        ),
    )
    recent = func.greatest(Input.recorded_at, Input.upload_begun_at, Input.stored_at) > since
    return or_(recent, used)


def _locked(session: Session, sha256s: Collection[str], which: ColumnElement[bool]) -> Sequence[str]:
    return session.scalars(
        select(Input.sha256).where(Input.sha256.in_(sha256s), which).with_for_update(skip_locked=True)
    ).all()


def _set_sweeping(session: Session, sha256s: Collection[str]) -> None:
    if sha256s:
        # From now on, a reconciliation does not miss the content.
        gone = {"stored_at": None, "missing_since": None, "verified_etag": None}
        session.execute(
            update(Input).where(Input.sha256.in_(sha256s)).values(sweeping_at=func.clock_timestamp(), **gone)
        )
