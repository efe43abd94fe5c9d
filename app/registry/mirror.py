"""The bucket mirrors the database: what it should hold for a key, and which keys to look at again.

The outbox only says "look at this key again". A worker then asks `should_hold` what the key should hold at
that moment, and makes the bucket match. So it does no harm to ask too often, or in another order.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    case,
    delete,
    exists,
    func,
    literal_column,
    null,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from app.db.tables import ACTIVE_BUILD, ACTIVE_REPRODUCTION, Artifact, Build, Model, Outbox, Promotion
from app.queue import enqueue_outbox
from app.storage import keys
from app.storage.keys import Place
from app.words import BuildKind, ModelState, Stage, Verdict, known


@dataclass(frozen=True)
class Exactly:
    """The key should hold these bytes."""

    content: bytes


@dataclass(frozen=True)
class CopyOf:
    """The key should hold an object with this digest, which may be unknown as yet.

    A missing object is copied from `source`, if the registry has ever had it elsewhere, or from one of
    `remade`: there, builds that make the model again keep what they have made, if it is exactly the same. A
    copy belongs to the build `owner`, whoever made it.
    """

    source: str | None
    sha256: str | None
    size_bytes: int
    remade: tuple[str, ...] = ()
    owner: UUID | None = None


@dataclass(frozen=True)
class Nothing:
    """The key should hold no object. `collected`: it belonged to a model that was collected."""

    collected: bool = False


@dataclass(frozen=True)
class NotOurs:
    """The registry leaves the key alone, whatever it holds."""

    reason: str


# How long a key that cannot be settled waits at most until it is looked at again.
LONGEST_WAIT = timedelta(minutes=5)

Wanted = Exactly | CopyOf | Nothing | NotOurs


@dataclass(frozen=True)
class RecordedArtifact:
    """What the database says about one file of a model. `sha256` is None until it has been computed."""

    name: str
    key: str
    sha256: str | None
    size_bytes: int
    verified_etag: str | None
    missing: bool


@dataclass(frozen=True)
class RecordedModel:
    """What the database says about a model, as far as the bucket mirrors it."""

    id: UUID
    prefix: str
    build_id: UUID | None
    verdict: str
    state: str
    stages: frozenset[str]
    artifacts: Mapping[str, RecordedArtifact]
    # The active builds that make the model again, and were asked to repair it.
    repaired_by: tuple[UUID, ...] = ()

    def names(self) -> Iterator[str]:
        """The names that hold an object in the model's prefix: its artifacts, then its markers."""
        if self.state in (ModelState.SWEEPING, ModelState.COLLECTED):
            return
        yield from self.artifacts
        markers = [self.verdict, *(stage for stage in Stage if stage in self.stages)]
        yield from (name for name in markers if isinstance(of_model(self, name), Exactly))


def should_hold(session: Session, key: str) -> Wanted:
    """What the bucket should hold for a key according to the database."""
    return should_hold_each(session, [key])[0]


def should_hold_each(session: Session, asked: Sequence[str]) -> list[Wanted]:
    """What the bucket should hold for each of the keys. It takes a few statements, however many keys."""
    places = [keys.parse(key) for key in asked]
    prefixes = {place.prefix for place in places if place is not None}
    models = {model.prefix: model for model in recorded(session, Model.prefix.in_(prefixes))}
    unknown = prefixes - models.keys()
    building = being_built(session, unknown) if unknown else set()

    def wanted(place: Place | None) -> Wanted:
        if place is None:
            return NotOurs("it does not belong to a prefix")
        if place.prefix in models:
            return of_model(models[place.prefix], place.name)
        if place.prefix in building:
            return NotOurs(f"a build of {place.prefix} is under way, and publishes it")
        return NotOurs(f"the registry has no model {place.prefix}")

    return [wanted(place) for place in places]


def of_model(model: RecordedModel, name: str) -> Wanted:
    """What the bucket should hold for a name in the model's prefix."""
    if model.state in (ModelState.SWEEPING, ModelState.COLLECTED):
        return _of_gone(model, name)
    if (stage := known(Stage, name)) is not None:
        return Exactly(b"") if stage in model.stages else Nothing()
    verdict = known(Verdict, name)
    if verdict is not None and verdict.has_marker:
        return Exactly(b"") if model.verdict == verdict else Nothing()
    artifact = model.artifacts.get(name)
    if artifact is None:
        return NotOurs(f"it is not an artifact of {model.prefix}")
    if model.build_id is None or artifact.sha256 is None:
        return CopyOf(None, artifact.sha256, artifact.size_bytes)
    return CopyOf(
        keys.unpublished_key(model.build_id, artifact.sha256),
        artifact.sha256,
        artifact.size_bytes,
        tuple(keys.unpublished_key(build_id, artifact.sha256) for build_id in model.repaired_by),
        model.build_id,
    )


def _of_gone(model: RecordedModel, name: str) -> Wanted:
    """For a model that was collected, or whose objects are being deleted."""
    if model.state == ModelState.SWEEPING:
        # The markers go last, so nobody else may delete one.
        return NotOurs(f"garbage collection is deleting {model.prefix}")
    if name in model.artifacts or name in keys.MARKERS:
        return Nothing(collected=True)
    return NotOurs(f"it was not an artifact of {model.prefix}, which was collected")


def recorded(session: Session, which: ColumnElement[bool]) -> list[RecordedModel]:
    """The models that the condition selects, as the bucket mirrors them. These are four statements."""
    models = session.execute(
        select(Model.id, Model.prefix, Model.build_id, Model.verdict, Model.state).where(which)
    ).all()
    ids = [model.id for model in models]
    stages: dict[UUID, set[str]] = {}
    for model_id, stage in session.execute(
        select(Promotion.model_id, Promotion.stage).where(Promotion.model_id.in_(ids)).distinct()
    ):
        stages.setdefault(model_id, set()).add(stage)
    artifacts: dict[UUID, dict[str, RecordedArtifact]] = {}
    for row in session.execute(
        select(
            Artifact.model_id,
            Artifact.name,
            Artifact.key,
            Artifact.sha256,
            Artifact.size_bytes,
            Artifact.verified_etag,
            Artifact.missing_since.is_not(None).label("missing"),
        )
        .where(Artifact.model_id.in_(ids))
        .order_by(Artifact.name)
    ):
        artifacts.setdefault(row.model_id, {})[row.name] = RecordedArtifact(*row[1:])
    repairing: dict[UUID, list[UUID]] = {}
    for reproduced, build_id in session.execute(
        select(Build.reproduces, Build.id).where(
            Build.reproduces.in_(ids),
            ACTIVE_REPRODUCTION,
            Build.reproduction_wanted["repair"].as_boolean(),
        )
    ):
        if reproduced is not None:
            repairing.setdefault(reproduced, []).append(build_id)
    return [
        RecordedModel(
            *model,
            frozenset(stages.get(model.id, ())),
            artifacts.get(model.id, {}),
            tuple(repairing.get(model.id, ())),
        )
        for model in models
    ]


def being_built(session: Session, prefixes: Iterable[str]) -> set[str]:
    """Those of the prefixes that an active build may be publishing."""
    return set(
        session.scalars(
            select(Build.prefix).where(
                Build.prefix.in_(list(prefixes)),
                Build.kind == BuildKind.TRAIN,
                ACTIVE_BUILD,
            )
        )
    )


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
    """The keys that are due. The one that has waited longest comes first.

    Keys of one prefix are settled one after the other: first files, then markers in the order in which they
    were asked for. A marker that appears tells readers that everything before it is in place. So while a key
    is put off, those that follow it in its prefix wait with it.
    """
    earlier = aliased(Outbox)
    query = (
        select(Outbox.key, Outbox.generation)
        .where(
            Outbox.next_attempt_at <= func.clock_timestamp(),
            ~exists().where(
                _prefix_of(earlier) == _prefix_of(Outbox),
                tuple_(_is_marker(earlier), earlier.generation)
                < tuple_(_is_marker(Outbox), Outbox.generation),
            ),
        )
        .order_by(Outbox.next_attempt_at, Outbox.generation)
        .limit(limit)
    )
    return [Entry(row.key, row.generation) for row in session.execute(query)]


def _prefix_of(entry: type[Outbox]) -> ColumnElement[str]:
    return func.split_part(entry.key, literal_column("'/'"), literal_column("1"))


def _is_marker(entry: type[Outbox]) -> ColumnElement[int]:
    """1 for a marker and 0 for a file."""
    return case((func.split_part(entry.key, "/", 2).in_(keys.MARKERS), 1), else_=0)


@dataclass(frozen=True)
class Waiting:
    """A key that waits to be looked at."""

    key: str
    asked_at: datetime
    attempts: int
    next_attempt_at: datetime
    last_error: str | None


@dataclass(frozen=True)
class Backlog:
    """What the bucket does not mirror yet. `first` are the keys that have waited longest."""

    waiting: int
    since: datetime | None
    first: tuple[Waiting, ...]


def backlog(session: Session, limit: int = 50) -> Backlog:
    waiting, since = session.execute(select(func.count(), func.min(Outbox.asked_at))).one()
    first = session.execute(
        select(Outbox.key, Outbox.asked_at, Outbox.attempts, Outbox.next_attempt_at, Outbox.last_error)
        .order_by(Outbox.asked_at, Outbox.generation)
        .limit(limit)
    )
    return Backlog(waiting, since, tuple(Waiting(*row) for row in first))


def asked_for(session: Session, among: Iterable[str]) -> set[str]:
    """Those of the keys that wait to be looked at, so that what they hold now says nothing."""
    return set(session.scalars(select(Outbox.key).where(Outbox.key.in_(list(among)))))


def done(session: Session, entry: Entry) -> bool:
    """Delete the entry, unless its key was asked for again meanwhile. Returns whether it was deleted."""
    taken_off = session.scalar(delete(Outbox).where(*_as_asked(entry)).returning(Outbox.key))
    return taken_off is not None


def failed(session: Session, entry: Entry, error: str, longest: timedelta = LONGEST_WAIT) -> timedelta | None:
    """Delay the entry, longer each time, up to the longest delay. Returns the delay.

    Returns None if the key was asked for again meanwhile, because the entry then stays due.
    """
    attempts = session.scalar(select(Outbox.attempts).where(*_as_asked(entry)).with_for_update())
    if attempts is None:
        return None
    wait = min(longest, timedelta(seconds=2 ** min(attempts, 9)))
    session.execute(
        update(Outbox)
        .where(Outbox.key == entry.key)
        .values(attempts=attempts + 1, last_error=error, next_attempt_at=func.clock_timestamp() + wait)
    )
    return wait


def _as_asked(entry: Entry) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return Outbox.key == entry.key, Outbox.generation == entry.generation
