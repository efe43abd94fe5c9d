"""Imports: the models of a bucket that was filled before this registry existed become its own.

Here is what the objects of a prefix mean, and how a model that was found is recorded.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Self
from uuid import UUID

import tomli
from sqlalchemy import and_, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db.tables import Artifact, Model, Promotion
from app.registry import mirror
from app.registry.prefixes import Prefix
from app.registry.runs.lifecycle import LISTED
from app.registry.stages import history
from app.storage import keys
from app.storage.bucket import Listed
from app.words import Actor, LeftOut, ModelState, Origin, Stage, Verdict

IMPORTED_BY = "import"

# The files of a model that existing tools write.
_FILES = (
    keys.MODEL_ZIP,
    keys.SEARCH_CONFIG,
    keys.BENCHMARK_XML,
    keys.BENCHMARK_ZIP,
    keys.CHECK_RESULT,
)


@dataclass(frozen=True)
class FoundModel:
    """A model as its objects in the bucket tell of it. `promoted` has the times of the stages' markers."""

    prefix: Prefix
    search_config: str | None
    metrics: Mapping[str, Mapping[str, float]]
    verdict: Verdict
    verdict_reason: str
    published_at: datetime
    files: Mapping[str, Listed]
    promoted: Mapping[Stage, datetime]


@dataclass
class Report:
    """What an import did, or would do. The counts are of everything; only the first names are listed."""

    dry_run: bool = False
    prefixes: int = 0
    adopted: int = 0
    promotions: int = 0
    # Prefixes that the registry has a model of already.
    known: int = 0
    left_out: int = 0
    digests: int = 0
    adopted_prefixes: list[str] = field(default_factory=list)
    left_out_prefixes: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """The report that a worker before has stored, or an empty one."""
        return cls(**{name: value for name, value in stored.items() if name in cls.__dataclass_fields__})

    def adopt(self, found: Sequence[FoundModel]) -> None:
        self.adopted += len(found)
        self.promotions += sum(len(one.promoted) for one in found)
        room = LISTED - len(self.adopted_prefixes)
        self.adopted_prefixes += [str(one.prefix) for one in found[: max(0, room)]]

    def leave_out(self, prefix: str, why: LeftOut) -> None:
        self.left_out += 1
        if len(self.left_out_prefixes) < LISTED:
            self.left_out_prefixes.append({"prefix": prefix, "reason": why.value})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def interpret(
    prefix: Prefix,
    objects: Mapping[str, Listed],
    config: bytes | None,
    metrics: Mapping[str, Mapping[str, float]],
) -> FoundModel | LeftOut:
    """What the objects of a prefix say, by their names, or why they are not a model to import."""
    model = objects.get(keys.MODEL_ZIP)
    if model is None or model.size_bytes == 0:
        return LeftOut.NO_MODEL
    text = None
    if config is not None:
        try:
            text = config.decode("utf-8-sig")
            version = tomli.loads(text).get("version")
        except (ValueError, RecursionError):
            return LeftOut.CONFIG_UNREADABLE
        if version != prefix.version:
            return LeftOut.VERSION_DIFFERS
    verdict, reason = _verdict(objects)
    return FoundModel(
        prefix=prefix,
        search_config=text,
        metrics=metrics,
        verdict=verdict,
        verdict_reason=reason,
        published_at=model.modified,
        files={name: objects[name] for name in _FILES if name in objects},
        promoted={stage: objects[stage].modified for stage in Stage if stage in objects},
    )


def _verdict(objects: Mapping[str, Listed]) -> tuple[Verdict, str]:
    """The verdict of the newest marker. A model that was validated again may have both."""
    markers = [
        (objects[verdict].modified, verdict == Verdict.FAILED, verdict)
        for verdict in (Verdict.PASSED, Verdict.FAILED)
        if verdict in objects
    ]
    if not markers:
        return Verdict.UNKNOWN, "it was imported, and the bucket had neither a passed nor a failed marker"
    at, _, verdict = max(markers)
    return verdict, f"it was imported with the marker {verdict} of {at:%Y-%m-%dT%H:%M:%SZ}"


def known(session: Session, prefixes: Iterable[str]) -> set[str]:
    """Those of the prefixes that the registry has a model of."""
    return set(session.scalars(select(Model.prefix).where(Model.prefix.in_(list(prefixes)))))


def adopt(session: Session, found: Sequence[FoundModel]) -> list[FoundModel]:
    """Record the models, their files, and the promotions that their markers tell of. Returns those recorded.

    A prefix that got a model or a build in the meantime is left out. A build that is posted while this
    transaction commits ends by itself, before anything is launched: it finds objects that are not its own.
    """
    taken = mirror.being_built(session, [str(one.prefix) for one in found])
    wanted = {str(one.prefix): one for one in found if str(one.prefix) not in taken}
    if not wanted:
        return []
    rows = session.execute(
        insert(Model)
        .values([_model(one) for one in wanted.values()])
        .on_conflict_do_nothing(index_elements=[Model.prefix])
        .returning(Model.id, Model.prefix)
    )
    ids: dict[str, UUID] = {row.prefix: row.id for row in rows}
    recorded = {prefix: one for prefix, one in wanted.items() if prefix in ids}
    files = [
        {
            "model_id": ids[prefix],
            "name": name,
            "key": file.key,
            "sha256": None,
            "size_bytes": file.size_bytes,
            "content_type": keys.CONTENT_TYPES[name],
        }
        for prefix, one in recorded.items()
        for name, file in one.files.items()
    ]
    if files:
        session.execute(insert(Artifact).values(files))
    _add_promotions(session, {ids[prefix]: one for prefix, one in recorded.items()})
    return list(recorded.values())


def _add_promotions(session: Session, models: Mapping[UUID, FoundModel]) -> None:
    """Record the promotions that the markers tell of, with the markers' times and in their order."""
    promoted = sorted(
        (list(Stage).index(stage), at, one.prefix.version, model_id)
        for model_id, one in models.items()
        for stage, at in one.promoted.items()
    )
    for position in dict.fromkeys(position for position, *_ in promoted):
        history.lock(session, list(Stage)[position])
    rows = [
        {
            "model_id": model_id,
            "version": version,
            "stage": list(Stage)[position],
            "promoted_by": IMPORTED_BY,
            "promoted_by_kind": Actor.SYSTEM,
            "note": "from the marker in the bucket",
            # The clock of S3 may be ahead, and no promotion lies in the future.
            "promoted_at": func.least(at, func.clock_timestamp()),
        }
        for position, at, version, model_id in promoted
    ]
    if rows:
        session.execute(insert(Promotion).values(rows))


def _model(found: FoundModel) -> dict[str, Any]:
    return {
        "prefix": str(found.prefix),
        "version": found.prefix.version,
        "sha": found.prefix.sha7,
        "origin": Origin.IMPORTED,
        "search_config": found.search_config,
        "metrics": found.metrics,
        "verdict": found.verdict,
        "verdict_reason": found.verdict_reason,
        "published_at": found.published_at,
    }


# The files of a collected model are gone, so nobody can compute their digests.
_UNDIGESTED = and_(
    Artifact.sha256.is_(None),
    exists().where(Model.id == Artifact.model_id, Model.state.in_([ModelState.KEPT, ModelState.MARKED])),
)


@dataclass(frozen=True)
class Undigested:
    """An imported file whose digest has not been computed yet."""

    key: str
    size_bytes: int


def undigested(session: Session, after: str, limit: int) -> list[Undigested]:
    """The first of these files whose key comes after `after`."""
    rows = session.execute(
        select(Artifact.key, Artifact.size_bytes)
        .where(_UNDIGESTED, Artifact.key > after)
        .order_by(Artifact.key)
        .limit(limit)
    )
    return [Undigested(*row) for row in rows]


def count_undigested(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Artifact).where(_UNDIGESTED)) or 0


def set_digest(session: Session, key: str, sha256: str, etag: str) -> None:
    """Record the digest of an imported file, and the ETag of the object that was read for it."""
    session.execute(
        update(Artifact)
        .where(Artifact.key == key, Artifact.sha256.is_(None))
        .values(sha256=sha256, verified_etag=etag, missing_since=None)
    )
