"""The documents of a model that stay readable for ever, also when its files were collected.

They are read from the bucket as they were published. Before garbage collection deletes them there, it saves
them in the database.
"""

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from sqlalchemy import and_, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.aws import CloudNotFound
from app.db.session import Database
from app.db.tables import Artifact, Model, SavedDocument
from app.registry.errors import ArtifactsMissing, NotFound
from app.registry.models import catalogue, states
from app.registry.models.catalogue import ArtifactRef
from app.storage.bucket import Bucket
from app.words import Document, Origin

_log = logging.getLogger(__name__)

# A statement has a few hundred bytes for each input.
_LIMIT_BYTES = 64 << 20

# The models whose documents are kept, by their origin. What the validation of a built model found is in the
# database anyway.
_KEPT_OF = {
    Document.PROVENANCE: tuple(Origin),
    Document.SIGNATURE: tuple(Origin),
    Document.CHECK_RESULT: (Origin.IMPORTED,),
}


def read(database: Database, bucket: Bucket, prefix: str, name: Document) -> bytes:
    """The bytes of the model's document, whatever garbage collection has done with the model.

    Raises NotFound, ArtifactsMissing, ModelCollected for a document that was lost before it could be saved,
    and CloudError.
    """
    with database.transaction() as session:
        model = catalogue.get_with_artifacts(session, prefix)
        file = next((file for file in model.artifacts if file.name == name), None)
        if file is None or model.origin not in _KEPT_OF[name]:
            message = f"Model {prefix} {_why_absent(name, model)}."
            raise NotFound(message)
        saved = _saved(session, model.id, name)
        reference = ArtifactRef(file.name, file.key, file.sha256, file.size_bytes)
    content = saved if saved is not None else _fetch(bucket, reference)
    if content is not None:
        return content
    # It may have been saved and deleted since.
    with database.transaction() as session:
        model = catalogue.get_with_artifacts(session, prefix)
        content = _saved(session, model.id, name)
        if content is None:
            states.refuse_gone(model)
            message = (
                f"The bucket lacks {reference.key}, or has other content there. Restore it, and have "
                "POST /mirror/reconcile look at it."
            )
            raise ArtifactsMissing(message, prefix=prefix, artifacts=(name.value,))
    return content


def _why_absent(name: Document, model: Model) -> str:
    imported = model.origin == Origin.IMPORTED
    match name:
        case Document.PROVENANCE if imported:
            return "has no provenance: it was imported, and nobody recorded what it was made from"
        case Document.PROVENANCE:
            return "has no provenance: it was published without one"
        case Document.SIGNATURE:
            return "has no signature: nobody has signed it"
        case Document.CHECK_RESULT if imported:
            return "has no check_result.json: it was imported without one"
        case Document.CHECK_RESULT:
            return (
                f"was built here, so GET /models/{model.prefix}/validation has the report of its validation"
            )


def to_save(session: Session, model_ids: Collection[UUID]) -> dict[UUID, list[ArtifactRef]]:
    """The documents of each of the models that must be saved before its objects are deleted."""
    found: dict[UUID, list[ArtifactRef]] = {}
    rows = session.execute(
        select(Artifact.model_id, Artifact.name, Artifact.key, Artifact.sha256, Artifact.size_bytes)
        .join(Model, Model.id == Artifact.model_id)
        .outerjoin(
            SavedDocument,
            (SavedDocument.model_id == Artifact.model_id) & (SavedDocument.name == Artifact.name),
        )
        .where(
            Artifact.model_id.in_(model_ids),
            or_(*(and_(Artifact.name == name, Model.origin.in_(of)) for name, of in _KEPT_OF.items())),
            SavedDocument.name.is_(None),
        )
        .order_by(Artifact.key)
    )
    for row in rows:
        found.setdefault(row.model_id, []).append(ArtifactRef(*row[1:]))
    return found


def fetch(bucket: Bucket, files: Sequence[ArtifactRef]) -> dict[str, bytes]:
    """The content of the documents by name. No session may be open meanwhile. Raises CloudError.

    What the bucket lacks, or has with other content, is left out: nobody can save it.
    """
    found: dict[str, bytes] = {}
    for file in files:
        content = _fetch(bucket, file)
        if content is None:
            _log.warning("key=%s is not as it was published, so it cannot be saved", file.key)
        else:
            found[file.name] = content
    return found


def save(session: Session, model_id: UUID, contents: Mapping[str, bytes]) -> None:
    """Save the documents. Those that are saved already stay as they are."""
    rows = [{"model_id": model_id, "name": name, "content": contents[name]} for name in sorted(contents)]
    if rows:
        session.execute(insert(SavedDocument).values(rows).on_conflict_do_nothing())


def _saved(session: Session, model_id: UUID, name: str) -> bytes | None:
    return session.scalar(
        select(SavedDocument.content).where(SavedDocument.model_id == model_id, SavedDocument.name == name)
    )


def _fetch(bucket: Bucket, file: ArtifactRef) -> bytes | None:
    """The document as it was published. None if the bucket lacks it, or has other content there."""
    try:
        content = bucket.fetch(file.key, min(file.size_bytes, _LIMIT_BYTES)).content
    except CloudNotFound:
        return None
    # The digest of an imported file may not be computed yet.
    whole = len(content) == file.size_bytes
    return content if whole and file.sha256 in (None, hashlib.sha256(content).hexdigest()) else None
