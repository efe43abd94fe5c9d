"""Publishes a model. Its record, artifacts, markers and first promotion are stored in one transaction."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.db.tables import Artifact, Build, Model
from app.registry import mirror, notifications
from app.registry.builds import events
from app.registry.builds.lease import Lease, fence
from app.registry.errors import GateRefused
from app.registry.models import signatures
from app.registry.models.catalogue import ArtifactRef
from app.registry.models.signatures import PublicKey
from app.registry.stages import promotions
from app.registry.stages.promotions import PromotionRequest
from app.storage.keys import CONTENT_TYPES, verdict_key
from app.words import Actor, EventType, Stage, Verdict


@dataclass(frozen=True)
class Publication:
    """What a build publishes."""

    artifacts: tuple[ArtifactRef, ...]
    metrics: dict[str, Any]
    verdict: Verdict
    verdict_reason: str
    # Of the signature that is among the artifacts. None for an unsigned model.
    signed_with: PublicKey | None = None


def publish(session: Session, lease: Lease, publication: Publication) -> None:
    """Record the model of the build. Its artifacts must already be in the bucket. Raises LeaseLost."""
    build = fence(session, lease)
    model = Model(
        prefix=build.prefix,
        version=build.version,
        sha=build.sha,
        branch=build.branch,
        build_id=build.id,
        metrics=publication.metrics,
        verdict=publication.verdict,
        verdict_reason=publication.verdict_reason,
    )
    session.add(model)
    session.flush()
    notifications.verdict_given(session, model)
    session.add_all(
        Artifact(
            model_id=model.id,
            name=artifact.name,
            key=artifact.key,
            sha256=artifact.sha256,
            size_bytes=artifact.size_bytes,
            content_type=CONTENT_TYPES[artifact.name],
        )
        for artifact in publication.artifacts
    )
    session.flush()
    if publication.signed_with is not None:
        signatures.record(session, model, publication.signed_with)
    if build.promote_to is not None:
        _promote(session, build, Stage(build.promote_to))
    if publication.verdict.has_marker:
        # This comes after the promotion, which locks its stage. mirror.ask says why.
        mirror.ask(session, verdict_key(build.prefix, publication.verdict))


def _promote(session: Session, build: Build, stage: Stage) -> None:
    """Promote the model as its build asked for. A closed gate does not take anything from the build."""
    try:
        # The build has just compared every file in the bucket with its digest.
        promotions.record(
            session,
            build.requested_by,
            build.prefix,
            PromotionRequest(stage, "with its build"),
            Actor(build.requested_by_kind),
        )
    except GateRefused as refusal:
        told = {"stage": stage, "gate": refusal.gate, "message": refusal.message}
        events.add(session, build.id, EventType.PROMOTION_REFUSED, told)
