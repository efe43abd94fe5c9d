"""Compares the inputs that the bucket keeps with what was recorded of them. Nothing is repaired.

Nobody but the build that used an input has had its content, so the registry cannot write it again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from app.aws import CloudNotFound, PreconditionFailed
from app.registry.runs import kept_inputs, lifecycle
from app.registry.runs.kept_inputs import RecordedInput
from app.registry.runs.reconciliation import Finding, Report
from app.storage import keys
from app.storage.bucket import Listed, ObjectInfo
from app.words import MirrorDifference
from worker.runs.work import RunWork

# How many objects are compared before a run stores how far it has got.
_TOGETHER = 1000

_WHAT_TO_DO = (
    "Put the recorded content there again, from a backup or an older version of the object. Until then, "
    "models that were made from it cannot be made again; GET /inputs/{sha256} names them."
)


@dataclass(frozen=True)
class Seen:
    """What was seen of an input. `verified` is the ETag of an object whose content was compared."""

    sha256: str
    finding: Finding | None = None
    verified: str | None = None


@dataclass(frozen=True)
class Part:
    """Some objects that follow each other. They are all whose key `k` has after < k <= upto.

    `upto` is None for the last part, which covers everything that comes after `after`.
    """

    after: str
    upto: str | None
    objects: tuple[Listed, ...]


def reconcile_inputs(work: RunWork, report: Report) -> None:
    """Go through the kept inputs and the records side by side, in the order in which S3 lists keys."""
    after = work.checkpoint.get("inputs_after", "")
    if after is None:
        # The last part was stored, and the worker before died before it ended the run.
        return
    with work.transaction() as session:
        total = kept_inputs.count(session)
    for part in _parts(work, str(after)):
        work.check()
        seen = _look_at(work, part, report)
        lost = {one.sha256 for one in seen if one.finding is not None}
        with work.transaction() as session:
            progress = {"models": report.models, "inputs": report.inputs, "of_inputs": total}
            checkpoint = {"after": None, "inputs_after": part.upto}
            lifecycle.save(session, work.lease, checkpoint, progress, report.as_json())
            kept_inputs.remember(
                session,
                missing=sorted(lost),
                present=sorted({one.sha256 for one in seen} - lost),
                verified={one.sha256: one.verified for one in seen if one.verified is not None},
            )


def _parts(work: RunWork, after: str) -> Iterator[Part]:
    listing = work.bucket.listed(keys.INPUTS_FOLDER, after=after)
    while len(few := tuple(islice(listing, _TOGETHER))) == _TOGETHER:
        yield Part(after, few[-1].key, few)
        after = few[-1].key
    yield Part(after, None, few)


def _look_at(work: RunWork, part: Part, report: Report) -> list[Seen]:
    with work.transaction() as session:
        recorded = kept_inputs.in_range(session, part.after, part.upto)
    objects = {item.key: item for item in part.objects}
    report.objects += len(objects)
    for key in sorted(objects.keys() - {one.key for one in recorded}):
        detail = "The registry has recorded no such input."
        report.add(Finding(MirrorDifference.STRAY_OBJECT, key, detail))
    kept = [one for one in recorded if one.kept]
    report.inputs += len(kept)
    suspects = [one for one in kept if not _is_right(one, objects.get(one.key))]
    healthy = [Seen(one.sha256) for one in kept if _is_right(one, objects.get(one.key))]
    found = _examine(work, suspects)
    for seen in found:
        if seen.finding is not None:
            report.add(seen.finding)
    return healthy + found


def _is_right(recorded: RecordedInput, there: Listed | None) -> bool:
    """Whether the listing alone shows that the content is what it was when it was compared last."""
    return (
        there is not None and there.size_bytes == recorded.size_bytes and there.etag == recorded.verified_etag
    )


def _examine(work: RunWork, suspects: Sequence[RecordedInput]) -> list[Seen]:
    """Look at each by itself. First the objects, then the database: it is never older than they are."""
    heads = work.each(lambda one: work.bucket.head(one.key), suspects)
    with work.transaction() as session:
        now = kept_inputs.of_content(session, [one.sha256 for one in suspects])
    still = [
        (now[one.sha256], there)
        for one, there in zip(suspects, heads, strict=True)
        if one.sha256 in now and now[one.sha256].kept
    ]
    return work.each(lambda one: _judge(work, *one), still)


def _judge(work: RunWork, recorded: RecordedInput, there: ObjectInfo | None) -> Seen:
    """Compare what is there with the digest. The content is read if S3 knows no digest of it."""
    if there is None:
        detail = f"There is no such object. {_WHAT_TO_DO}"
        return Seen(recorded.sha256, Finding(MirrorDifference.INPUT_MISSING, recorded.key, detail))
    size = recorded.size_bytes
    if size is not None and there.size_bytes != size:
        return _differs(recorded, f"It has {there.size_bytes} bytes, and {size} were recorded.")
    try:
        digest = there.sha256 or work.bucket.digest_of(there, work.check)
    except (PreconditionFailed, CloudNotFound):
        # The object changed while it was read.
        return _judge(work, recorded, work.bucket.head(recorded.key))
    if digest != recorded.sha256:
        return _differs(recorded, f"Its sha256 is {digest}, which is not its name.")
    return Seen(recorded.sha256, verified=there.etag)


def _differs(recorded: RecordedInput, what: str) -> Seen:
    detail = f"{what} {_WHAT_TO_DO}"
    return Seen(recorded.sha256, Finding(MirrorDifference.INPUT_DIFFERS, recorded.key, detail))
