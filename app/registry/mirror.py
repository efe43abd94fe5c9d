"""The bucket mirrors the database: what it should hold for a key, and which keys to look at again.

The outbox only says "look at this key again". A worker then asks `should_hold` what the key should hold at
that moment, and makes the bucket match. So it does no harm to ask too often, or in another order.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, exists, func, null, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db.tables import Artifact, Build, Model, Outbox, Promotion
from app.queue import enqueue_outbox
from app.storage import keys
from app.words import BuildKind, BuildState, Stage, Verdict, known


@dataclass(frozen=True)
class Exactly:
    """The key should hold these bytes."""

    content: bytes


@dataclass(frozen=True)
class CopyOf:
    """The key should hold an object with this digest, which may be unknown as yet.

    A missing object is copied from `source`, if the registry has ever had it elsewhere.
    """

    source: str | None
    sha256: str | None
    size_bytes: int


@dataclass(frozen=True)
class Nothing:
    """The key should hold no object."""


@dataclass(frozen=True)
class NotOurs:
    """The registry leaves the key alone, whatever it holds."""

    reason: str


Wanted = Exactly | CopyOf | Nothing | NotOurs


def should_hold(session: Session, key: str) -> Wanted:
    """What the bucket should hold for a key according to the database."""
    place = keys.parse(key)
    if place is None:
        return NotOurs("it does not belong to a prefix")
    model = session.scalar(select(Model).where(Model.prefix == place.prefix))
    if model is None:
        if _is_being_built(session, place.prefix):
            return NotOurs(f"a build of {place.prefix} is under way, and publishes it")
        return NotOurs(f"the registry has no model {place.prefix}")
    return _of_model(session, model, place.name)


def _of_model(session: Session, model: Model, name: str) -> Wanted:
    if (stage := known(Stage, name)) is not None:
        been_in = exists().where(Promotion.model_id == model.id, Promotion.stage == stage)
        return Exactly(b"") if session.scalar(select(been_in)) else Nothing()
    verdict = known(Verdict, name)
    if verdict is not None and verdict.has_marker:
        return Exactly(b"") if model.verdict == verdict else Nothing()
    artifact = session.get(Artifact, (model.id, name))
    if artifact is None:
        return NotOurs(f"it is not an artifact of {model.prefix}")
    source = None
    if model.build_id is not None and artifact.sha256 is not None:
        source = keys.unpublished_key(model.build_id, artifact.sha256)
    return CopyOf(source, artifact.sha256, artifact.size_bytes)


def _is_being_built(session: Session, prefix: str) -> bool:
    active = exists().where(
        Build.prefix == prefix,
        Build.kind == BuildKind.TRAIN,
        Build.state.in_([state for state in BuildState if state.active]),
    )
    return bool(session.scalar(select(active)))


@dataclass(frozen=True)
class Entry:
    """An entry of the outbox: a key to look at, as it was when it was read."""

    key: str
    generation: int


def ask(session: Session, *asked: str) -> None:
    """Have a worker look at these keys once this transaction is committed.

    Call it last in a transaction. It waits for other transactions that call it at the same time. If it
    came before another lock, such as that of a promotion's stage, two transactions could deadlock.
    """
    # Sorted, because two transactions that ask for the same keys in different orders could deadlock.
    rows = [{"key": key} for key in sorted(set(asked))]
    session.execute(
        insert(Outbox)
        .values(rows)
        .on_conflict_do_update(
            index_elements=[Outbox.key],
            set_={
                "generation": text("DEFAULT"),
                "asked_at": func.clock_timestamp(),
                "attempts": 0,
                "next_attempt_at": func.clock_timestamp(),
                "last_error": null(),
            },
        )
    )
    enqueue_outbox(session)


def due(session: Session, limit: int = 100) -> list[Entry]:
    """The keys that are due. The one that has waited longest comes first."""
    rows = session.execute(
        select(Outbox.key, Outbox.generation)
        .where(Outbox.next_attempt_at <= func.clock_timestamp())
        .order_by(Outbox.next_attempt_at, Outbox.generation)
        .limit(limit)
    )
    return [Entry(row.key, row.generation) for row in rows]


def done(session: Session, entry: Entry) -> bool:
    """Delete the entry, unless its key was asked for again meanwhile. Returns whether it was deleted."""
    taken_off = session.scalar(delete(Outbox).where(*_as_asked(entry)).returning(Outbox.key))
    return taken_off is not None


def failed(session: Session, entry: Entry, error: str) -> timedelta | None:
    """Delay the entry, longer each time, up to five minutes. Returns the delay.

    Returns None if the key was asked for again meanwhile, because the entry then stays due.
    """
    attempts = session.scalar(select(Outbox.attempts).where(*_as_asked(entry)).with_for_update())
    if attempts is None:
        return None
    wait = timedelta(seconds=min(300, 2 ** min(attempts, 9)))
    session.execute(
        update(Outbox)
        .where(Outbox.key == entry.key)
        .values(attempts=attempts + 1, last_error=error, next_attempt_at=func.clock_timestamp() + wait)
    )
    return wait


def _as_asked(entry: Entry) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return Outbox.key == entry.key, Outbox.generation == entry.generation
