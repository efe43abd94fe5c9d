"""Requests to reproduce a model. One build at a time reproduces it, however often that is requested."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.aws import CloudError
from app.db.session import Database
from app.db.tables import ACTIVE_REPRODUCTION, Build
from app.registry.access import audit
from app.registry.builds import listing
from app.registry.builds.queueing import NewBuild, queue
from app.registry.errors import BucketUnavailable, Conflict, Invalid, LostInput, NotReproducible
from app.registry.reproductions import recorded
from app.registry.reproductions.outcomes import NotPinned, Wanted
from app.registry.reproductions.recorded import Recorded
from app.storage.bucket import Bucket
from app.words import Actor, AuditAction, BuildKind, Irreproducible, Pinned


@dataclass(frozen=True)
class ReproductionRequest:
    prefix: str
    wanted: Wanted
    requested_by: str
    requested_by_kind: Actor


def request(database: Database, bucket: Bucket, asked: ReproductionRequest) -> tuple[Build, bool]:
    """Queue a build that makes the model again. Returns the build, and whether it is new.

    While a reproduction of the model is active, that build is the answer, whatever it was asked for with.
    S3 is asked whether the recorded inputs are still there between two transactions. The worker looks again
    before it launches anything.
    Raises NotFound, Invalid, NotReproducible, BucketUnavailable and Conflict.
    """
    if asked.wanted.model_zip and not asked.wanted.repair:
        message = "model_zip allows a repair to write model.zip again. Send repair too, or leave it out."
        raise Invalid(message)
    with database.transaction() as session:
        known = recorded.of_prefix(session, asked.prefix)
        if active := _active(session, known.model_id):
            return active, False
    try:
        lost = recorded.lost(known, bucket, patient=False)
    except CloudError as exc:
        message = (
            f"S3 cannot say whether the inputs of {asked.prefix} are still there ({exc}). Send it again."
        )
        raise BucketUnavailable(message) from exc
    if refused := not_accepted(lost, asked.wanted.accept):
        raise _refusal(known, refused)
    with database.transaction() as session:
        # The reproduction that prevents ours can end before we read it. Then try again.
        for _ in range(10):
            if build := queue(session, _new(session, known, asked)):
                _audit(session, build, known, asked.wanted)
                return build, True
            if active := _active(session, known.model_id):
                return active, False
    message = f"The reproductions of {asked.prefix} keep starting and ending. Send the request again."
    raise Conflict(message)


def not_accepted(lost: Sequence[NotPinned], accept: Collection[str]) -> list[NotPinned]:
    """Those of the lost inputs in whose place nothing else may be used."""
    return [one for one in lost if one.what not in accept]


def _active(session: Session, model_id: UUID) -> Build | None:
    found = session.scalar(select(Build.id).where(Build.reproduces == model_id, ACTIVE_REPRODUCTION))
    return None if found is None else listing.get(session, found)


def _refusal(known: Recorded, refused: Sequence[NotPinned]) -> NotReproducible:
    kinds = list(dict.fromkeys(one.what for one in refused))
    named = "; ".join(map(str, refused))
    message = (
        f"{known.prefix} cannot be made again exactly, because not everything that it was made from is still "
        f"there: {named}. To use what is there now in its place, send accept with {', '.join(kinds)}."
    )
    return NotReproducible(
        message,
        prefix=known.prefix,
        reason=Irreproducible.NOT_PINNED,
        not_pinned=tuple(LostInput(Pinned(one.what), one.name, one.reason) for one in refused),
    )


def _new(session: Session, known: Recorded, asked: ReproductionRequest) -> NewBuild:
    version, sha, branch, search_config = session.execute(
        select(Build.version, Build.sha, Build.branch, Build.search_config).where(Build.id == known.build_id)
    ).one()
    return NewBuild(
        prefix=known.prefix,
        version=version,
        sha=sha,
        branch=branch,
        search_config=search_config,
        base_search_config=None,
        thresholds=None,
        promote_to=None,
        forced=False,
        requested_by=asked.requested_by,
        requested_by_kind=asked.requested_by_kind,
        kind=BuildKind.REPRODUCE,
        reproduces=known.model_id,
        reproduction_wanted=asked.wanted.model_dump(mode="json"),
    )


def _audit(session: Session, build: Build, known: Recorded, wanted: Wanted) -> None:
    audit.record(
        session,
        build.requested_by,
        Actor(build.requested_by_kind),
        AuditAction.REPRODUCTION_REQUESTED,
        str(build.id),
        after={"prefix": known.prefix, **wanted.model_dump(mode="json")},
    )
