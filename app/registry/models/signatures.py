"""Which models are signed, and the public keys to verify them with."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.aws import CloudError, CloudNotFound
from app.db.tables import Model, SigningKey
from app.registry.models import bundles
from app.registry.models.catalogue import ArtifactRef
from app.registry.models.wholeness import Findings
from app.storage.bucket import Bucket
from app.storage.keys import SIGNATURE
from app.words import Origin

# A signature has about 200 bytes for each file.
_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True)
class PublicKey:
    """The public half of a signing key, in PEM. The sha256 of that text is its fingerprint."""

    fingerprint: str
    pem: str


def record(session: Session, model: Model, key: PublicKey) -> None:
    """Record that the signature among the model's files was made with this key."""
    session.execute(
        insert(SigningKey)
        .values(fingerprint=key.fingerprint, public_key=key.pem)
        .on_conflict_do_nothing(index_elements=[SigningKey.fingerprint])
    )
    now = session.execute(select(func.clock_timestamp())).scalar_one()
    model.signed_with, model.signed_at = key.fingerprint, now
    session.flush()


def keys(session: Session) -> Sequence[SigningKey]:
    """Every key that models were signed with, newest first."""
    return session.scalars(
        select(SigningKey).order_by(SigningKey.first_used_at.desc(), SigningKey.fingerprint)
    ).all()


def key_of(session: Session, model: Model) -> str | None:
    """The public key that the model was signed with. None for an unsigned model."""
    return session.scalar(select(SigningKey.public_key).where(SigningKey.fingerprint == model.signed_with))


def is_owed(session: Session, model: Model) -> bool:
    """Whether the model is unsigned, and was published after the registry had begun to sign models."""
    if model.signed_with is not None or model.origin != Origin.BUILT:
        return False
    since: datetime | None = session.scalar(select(func.min(SigningKey.first_used_at)))
    return since is not None and since <= model.published_at


def look(bucket: Bucket, files: Sequence[ArtifactRef], public_key: str, found: Findings) -> Findings:
    """What S3 said, and whether the signature there holds for the files as they were recorded.

    No session may be open meanwhile.
    """
    signature = next((file for file in files if file.name == SIGNATURE), None)
    if signature is None or found.unavailable is not None:
        # The file is known to be missing, or S3 does not answer: both are said already.
        return found
    try:
        bundle = bucket.fetch(signature.key, _LIMIT_BYTES).content
    except CloudNotFound:
        return found
    except CloudError as exc:
        return Findings(found.lacking, str(exc))
    return Findings(found.lacking, None, _fault(bundle, files, public_key))


def _fault(bundle: bytes, files: Sequence[ArtifactRef], public_key: str) -> str | None:
    try:
        signed = bundles.signed_files(bundle, public_key)
    except ValueError as exc:
        return str(exc)
    recorded = {file.name: file.sha256 for file in files if file.name != SIGNATURE}
    differing = sorted(name for name, digest in recorded.items() if signed.get(name) != digest)
    if differing:
        return f"it does not sign these files as they were recorded: {', '.join(differing)}"
    return None
