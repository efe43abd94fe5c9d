"""Signing: a model that was published or imported without a signature gets one.

The key and the libraries are the worker's alone. So the API only records the request, as a run.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.db.tables import Artifact, Model, Run
from app.registry.access import audit
from app.registry.errors import RunActive
from app.registry.models import catalogue, signatures, states
from app.registry.models.catalogue import ArtifactRef
from app.registry.models.signatures import PublicKey
from app.registry.runs import imports, lifecycle
from app.registry.runs.lifecycle import RunLease
from app.storage import keys
from app.storage.bucket import FileDigest
from app.words import Actor, AuditAction, RunKind


@dataclass(frozen=True)
class Asked:
    """The model, and the run that signs it. There is none for a model that is signed already.

    `new` says whether this request made the run.
    """

    model: Model
    run: Run | None
    new: bool


def ask(session: Session, prefix: str, who: str, actor: Actor = Actor.TOKEN) -> Asked:
    """Have a worker sign the model. Asking again changes nothing.

    Raises NotFound, ModelMarked, ModelCollected, and RunActive while another model is being signed.
    """
    model = catalogue.get_with_artifacts(session, prefix)
    states.refuse_unless_kept(model)
    if model.signed_with is not None:
        return Asked(model, None, new=False)
    try:
        run = lifecycle.request(session, RunKind.SIGNING, {"prefix": prefix}, who, actor)
    except RunActive as active:
        other = None if active.run is None else lifecycle.get(session, active.run)
        if other is None or other.options.get("prefix") != prefix:
            raise
        return Asked(model, other, new=False)
    return Asked(model, run, new=True)


@dataclass(frozen=True)
class Target:
    """A model to sign: its files, and the key that it was signed with, if it was."""

    prefix: str
    files: tuple[ArtifactRef, ...]
    signed_with: str | None


def target(session: Session, prefix: str) -> Target:
    """Raises NotFound, ModelMarked and ModelCollected."""
    model = catalogue.get_with_artifacts(session, prefix)
    states.refuse_unless_kept(model)
    files = tuple(ArtifactRef(file.name, file.key, file.sha256, file.size_bytes) for file in model.artifacts)
    return Target(prefix, files, model.signed_with)


def add_digests(session: Session, lease: RunLease, found: Mapping[str, tuple[str, str]]) -> None:
    """Record the digests of imported files that had none, by key, with the ETags of what was read.

    Raises LeaseLost.
    """
    lifecycle.fence(session, lease)
    for key, (sha256, etag) in found.items():
        imports.set_digest(session, key, sha256, etag)


def record(session: Session, lease: RunLease, prefix: str, signature: FileDigest, key: PublicKey) -> None:
    """Record the signature as one of the model's files, and its key. Recording it again changes nothing.

    The bucket must hold it already. Raises LeaseLost, NotFound, ModelMarked and ModelCollected.
    """
    run = lifecycle.fence(session, lease)
    # Promotions hold this row while they decide, so none of them sees half of this.
    model = catalogue.get_locked(session, prefix)
    states.refuse_unless_kept(model)
    if model.signed_with is not None:
        return
    session.add(
        Artifact(
            model_id=model.id,
            name=keys.SIGNATURE,
            key=keys.artifact_key(prefix, keys.SIGNATURE),
            sha256=signature.sha256,
            size_bytes=signature.size_bytes,
            content_type=keys.CONTENT_TYPES[keys.SIGNATURE],
        )
    )
    signatures.record(session, model, key)
    audit.record(
        session,
        run.requested_by,
        Actor(run.requested_by_kind),
        AuditAction.MODEL_SIGNED,
        prefix,
        before={"key": None},
        after={"key": key.fingerprint, "run": str(run.id)},
    )
