"""Which models are signed, and the public keys to verify them with."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db.tables import Model, SigningKey


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
