"""Signs a model that was published or imported without a signature."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from app.registry.errors import NotFound, NotKept
from app.registry.models import bundles
from app.registry.models.signatures import PublicKey
from app.registry.runs import lifecycle, signing
from app.registry.runs.signing import Target
from app.storage import keys
from app.storage.bucket import FileDigest, KeyTaken, digest_of
from worker.documents.key import NoSigningKey, signing_key
from worker.documents.signature import sign
from worker.errors import RunFailed
from worker.process import scratch
from worker.runs import digests
from worker.runs.work import RunWork

# A signature has about 200 bytes for each file.
_LIMIT_BYTES = 1 << 20

_NO_KEY = (
    "No key to sign with is set. Set REGISTRY_SIGNING_KEY or REGISTRY_SIGNING_KEY_SECRET for every worker, "
    "start the workers again, and ask for the signature again."
)


@dataclass(frozen=True)
class Made:
    """A signature that was made, with the public half of its key. It is stored before it is written.

    Two signatures over the same files differ, so a worker that takes over writes the one that was made.
    """

    signature: str
    fingerprint: str
    public_key: str

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self | None:
        """What a worker before has stored."""
        made = stored.get("made")
        return None if made is None else cls(**{name: made[name] for name in cls.__dataclass_fields__})

    @property
    def key(self) -> PublicKey:
        return PublicKey(self.fingerprint, self.public_key)


def sign_model(work: RunWork) -> None:
    """Compare the model's files with what was recorded, sign them, and record the signature.

    Options: `prefix` names the model. A model that is signed by now is left as it is. Raises RunFailed.
    """
    try:
        _sign(work, str(work.options["prefix"]))
    except (NotFound, NotKept) as exc:
        raise RunFailed(exc.message) from exc


def _sign(work: RunWork, prefix: str) -> None:
    with work.transaction() as session:
        target = signing.target(session, prefix)
    if target.signed_with is None:
        made = Made.of(work.checkpoint)
        if made is None:
            made = _make(work, target)
        content = _put(work, target, made)
        with work.transaction() as session:
            signing.record(session, work.lease, prefix, content, made.key)
            lifecycle.save(session, work.lease, {}, {"phase": "signed"}, _result(target, made.fingerprint))
    elif not work.result:
        with work.transaction() as session:
            result = _result(target, target.signed_with)
            lifecycle.save(session, work.lease, {}, {"phase": "signed"}, result)


def _result(target: Target, fingerprint: str) -> dict[str, Any]:
    return {"prefix": target.prefix, "key": fingerprint, "files": len(_signed(target))}


def _make(work: RunWork, target: Target) -> Made:
    """The signature over the model's files, once it is stored. Raises RunFailed."""
    try:
        # First, because without it nothing need be read.
        key = signing_key(work.settings, work.clouds.home)
    except NoSigningKey as exc:
        raise RunFailed(str(exc)) from exc
    if key is None:
        raise RunFailed(_NO_KEY)
    files = _compare(work, target)
    with tempfile.TemporaryDirectory(prefix="signing-", dir=scratch.folder()) as folder:
        file = Path(folder) / keys.SIGNATURE
        sign(target.prefix, files, key, file)
        made = Made(file.read_text(encoding="utf-8"), key.fingerprint, key.public_key)
    with work.transaction() as session:
        lifecycle.save(session, work.lease, {"made": asdict(made)}, {"phase": "write"}, {})
    return made


def _compare(work: RunWork, target: Target) -> dict[str, str]:
    """The digests of the model's files, which the bucket holds as they were recorded. Raises RunFailed.

    The digests of imported files that have none yet are recorded first, as an import does it.
    """
    found = work.each(lambda file: digests.digest_of(work, file.key, file.size_bytes), target.files)
    lacking = [
        file.name
        for file, digest in zip(target.files, found, strict=True)
        if digest is None or file.sha256 not in (None, digest[0])
    ]
    if lacking:
        message = (
            f"The bucket lacks files of {target.prefix}, or has other content there: {', '.join(lacking)}. "
            "Nothing was signed. Restore them, have POST /mirror/reconcile look at them, and ask for the "
            "signature again."
        )
        raise RunFailed(message)
    whole = {file: digest for file, digest in zip(target.files, found, strict=True) if digest is not None}
    with work.transaction() as session:
        new = {file.key: digest for file, digest in whole.items() if file.sha256 is None}
        signing.add_digests(session, work.lease, new)
        # An import may have recorded another digest meanwhile, of other content.
        recorded = _signed(signing.target(session, target.prefix))
    if recorded != {file.name: digest for file, (digest, _) in whole.items()}:
        message = f"Files of {target.prefix} changed while they were read. Ask for the signature again."
        raise RunFailed(message)
    return {name: digest for name, digest in recorded.items() if digest is not None}


def _signed(target: Target) -> dict[str, str | None]:
    """What the signature is over: every file but itself. The markers do not belong to the model's files."""
    return {file.name: file.sha256 for file in target.files if file.name != keys.SIGNATURE}


def _put(work: RunWork, target: Target, made: Made) -> FileDigest:
    """Write the signature, if no object is there yet. Returns what is there then. Raises RunFailed."""
    key = keys.artifact_key(target.prefix, keys.SIGNATURE)
    with tempfile.TemporaryDirectory(prefix="signing-", dir=scratch.folder()) as folder:
        file = Path(folder) / keys.SIGNATURE
        file.write_text(made.signature, encoding="utf-8")
        content = digest_of(file)
        work.check()
        try:
            work.bucket.put_once(key, file, content, content_type=keys.CONTENT_TYPES[keys.SIGNATURE])
        except KeyTaken:
            # A run that was stopped before it recorded its signature leaves it there.
            there = work.bucket.fetch(key, _LIMIT_BYTES).content
            file.write_bytes(there)
            _check_other(work, target, made, there)
            return digest_of(file)
    return content


def _check_other(work: RunWork, target: Target, made: Made, there: bytes) -> None:
    """Raises RunFailed unless an object in the signature's place is as good as ours."""
    try:
        with work.transaction() as session:
            recorded = _signed(signing.target(session, target.prefix))
        if bundles.signed_files(there, made.public_key) == recorded:
            return
        why = "it signs other files"
    except ValueError as exc:
        why = str(exc)
    message = (
        f"The bucket has another {keys.artifact_key(target.prefix, keys.SIGNATURE)}, which is not replaced: "
        f"{why}. Find out who has put it there, delete it, and ask for the signature again."
    )
    raise RunFailed(message)
