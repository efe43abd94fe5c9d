"""The statement of what a model was made from, as it was published with it."""

import hashlib

from app.aws import CloudNotFound
from app.db.session import Database
from app.registry.errors import ArtifactsMissing, NotFound
from app.registry.models import catalogue
from app.storage.bucket import Bucket
from app.storage.keys import PROVENANCE
from app.words import Origin

# A statement has a few hundred bytes for each input.
_LIMIT_BYTES = 64 << 20


def published(database: Database, bucket: Bucket, prefix: str) -> bytes:
    """The bytes of the model's provenance.json. Raises NotFound, ArtifactsMissing and CloudError."""
    with database.transaction() as session:
        model = catalogue.get_with_artifacts(session, prefix)
        file = next((file for file in model.artifacts if file.name == PROVENANCE), None)
        if file is None:
            why = (
                "it was imported, and nobody recorded what it was made from"
                if model.origin == Origin.IMPORTED
                else "it was published without one"
            )
            message = f"Model {prefix} has no provenance: {why}."
            raise NotFound(message)
        key, sha256, size_bytes = file.key, file.sha256, file.size_bytes
    try:
        content = bucket.fetch(key, min(size_bytes, _LIMIT_BYTES)).content
    except CloudNotFound:
        content = b""
    # The digest of an imported file may not be computed yet.
    if len(content) != size_bytes or sha256 not in (None, hashlib.sha256(content).hexdigest()):
        message = (
            f"The bucket lacks {key}, or has other content there. Restore it, and have "
            "POST /mirror/reconcile look at it."
        )
        raise ArtifactsMissing(message, prefix=prefix, artifacts=(PROVENANCE,))
    return content
