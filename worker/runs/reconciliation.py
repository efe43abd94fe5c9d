"""Compares the bucket with the database, and repairs what is safe to repair."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from app.aws import PreconditionFailed
from app.registry import mirror
from app.registry.errors import Invalid
from app.registry.mirror import CopyOf, Exactly, Nothing, NotOurs, RecordedModel, Wanted
from app.registry.prefixes import Prefix
from app.registry.runs import lifecycle, reconciliation
from app.registry.runs.reconciliation import Finding, Report
from app.storage import keys
from app.storage.bucket import Listed, ObjectInfo
from app.words import MirrorDifference, ModelState
from worker.mirror import Unsettled, settle
from worker.runs.folders import Folder, Part, parts
from worker.runs.kept_inputs import reconcile_inputs
from worker.runs.strays import delete_strays
from worker.runs.work import RunWork

_NO_CONSENT = (
    "model.zip is written again only with `model_zip`, because existing tools take the newest for the latest"
)


@dataclass(frozen=True)
class Seen:
    """What was seen of a key. `verified` is the ETag of an object whose content was compared."""

    key: str
    finding: Finding | None = None
    artifact: bool = False
    verified: str | None = None
    waiting: bool = False


def reconcile(work: RunWork) -> None:
    """Go through the bucket and the models side by side, in the order in which S3 lists keys.

    Whatever seems to differ is looked at once more by itself, because models are published and promoted while
    the listing is read. The inputs come last. Options: `apply` repairs markers and files, and `model_zip`
    also model.zip. The prefixes of `delete_strays` are deleted before anything is compared.
    """
    report = Report.of(work.result)
    delete_strays(work, report)
    after = work.checkpoint.get("after", "")
    # The last part's end is None: every model was looked at, and the inputs are next.
    if after is not None:
        _reconcile_models(work, report, str(after))
    reconcile_inputs(work, report)


def _reconcile_models(work: RunWork, report: Report, after: str) -> None:
    with work.transaction() as session:
        total = reconciliation.count_models(session)
    for part in parts(work.bucket, after):
        work.check()
        seen = _look_at(work, part, report)
        artifacts = [one for one in seen if one.artifact]
        lost = {one.key for one in artifacts if one.finding is not None and not one.finding.repaired}
        with work.transaction() as session:
            progress = {"prefixes": report.prefixes, "models": report.models, "of_models": total}
            lifecycle.save(session, work.lease, {"after": part.upto}, progress, report.as_json())
            reconciliation.remember(
                session,
                missing=sorted(lost),
                present=sorted({one.key for one in artifacts} - lost),
                verified={one.key: one.verified for one in artifacts if one.verified is not None},
            )


def _look_at(work: RunWork, part: Part, report: Report) -> list[Seen]:
    """Compare one part of the bucket, and repair what was asked for."""
    with work.transaction() as session:
        models = mirror.recorded(session, reconciliation.in_range(part.after, part.upto))
        known = {model.prefix: model for model in models}
        unknown = [folder for folder in part.folders if folder.prefix not in known]
        building = mirror.being_built(session, [folder.prefix for folder in unknown])
    folders = {folder.prefix: folder for folder in part.folders}
    report.prefixes += len(part.folders)
    report.objects += sum(len(folder.objects) for folder in part.folders)
    report.models += len(models)
    for folder in unknown:
        if folder.prefix not in building and _is_prefix(folder.prefix):
            detail = f"The registry has no model of this prefix, which has {len(folder.objects)} objects."
            report.add(Finding(MirrorDifference.UNKNOWN_PREFIX, f"{folder.prefix}/", detail))
    suspects: list[str] = []
    healthy: list[Seen] = []
    for model in models:
        if model.state == ModelState.SWEEPING:
            # A collection is deleting its objects, so what is there now says nothing.
            continue
        folder = folders.get(model.prefix, Folder(model.prefix, {}))
        for name, wanted in _wanted(model, folder):
            key, there = keys.artifact_key(model.prefix, name), folder.objects.get(name)
            if isinstance(wanted, NotOurs):
                detail = f"It does not belong to the model: {wanted.reason}."
                report.add(Finding(MirrorDifference.STRAY_OBJECT, key, detail))
            elif _is_right(model, name, wanted, there):
                healthy.append(Seen(key, artifact=isinstance(wanted, CopyOf)))
            else:
                suspects.append(key)
    found = _examine(work, suspects)
    found = [_repair(work, seen) for seen in found]
    for seen in found:
        report.waiting += seen.waiting
        if seen.finding is not None:
            report.add(seen.finding)
    return healthy + found


def _is_prefix(folder: str) -> bool:
    try:
        Prefix.parse(folder)
    except Invalid:
        return False
    return True


def _wanted(model: RecordedModel, folder: Folder) -> Iterator[tuple[str, Wanted]]:
    """What each name of the model should hold: those that it should have, and those that are there."""
    for name in dict.fromkeys([*model.names(), *folder.objects]):
        yield name, mirror.of_model(model, name)


def _is_right(model: RecordedModel, name: str, wanted: Wanted, there: Listed | None) -> bool:
    """Whether the listing alone shows that the key holds what it should."""
    match wanted:
        case Nothing():
            return there is None
        case Exactly(content):
            return there is not None and there.size_bytes == len(content) == 0
        case CopyOf(_, sha256, size_bytes) if there is not None and there.size_bytes == size_bytes:
            # The digest of an imported file may not be known yet: until then, its size has to do.
            return sha256 is None or there.etag == model.artifacts[name].verified_etag
    return False


def _examine(work: RunWork, suspects: Sequence[str]) -> list[Seen]:
    """Look at each key by itself. First the objects, then the database: it is never older than they are."""
    heads = work.each(work.bucket.head, suspects)
    with work.transaction() as session:
        wanted = mirror.should_hold_each(session, suspects)
        waiting = mirror.asked_for(session, suspects)

    def judge(one: tuple[str, ObjectInfo | None, Wanted]) -> Seen:
        key, there, wanted = one
        return Seen(key, waiting=True) if key in waiting else _judge(work, key, there, wanted)

    return work.each(judge, zip(suspects, heads, wanted, strict=True))


def _judge(work: RunWork, key: str, there: ObjectInfo | None, wanted: Wanted) -> Seen:
    """Compare what is there with what is wanted. The content is read if S3 knows no digest of it."""
    if not isinstance(wanted, CopyOf):
        return Seen(key, _plain_finding(key, wanted, there))
    try:
        finding = _artifact_finding(work, key, wanted, there)
    except PreconditionFailed:
        # The object changed while it was read.
        return _judge(work, key, work.bucket.head(key), wanted)
    compared = finding is None and there is not None and wanted.sha256 is not None
    return Seen(key, finding, artifact=True, verified=there.etag if there is not None and compared else None)


def _plain_finding(key: str, wanted: Wanted, there: ObjectInfo | None) -> Finding | None:
    """Of a marker, or of what should not be there."""
    match wanted:
        case Nothing(collected=True) if there is not None:
            detail = "It belonged to a model that was collected."
            return Finding(MirrorDifference.LEFTOVER, key, detail)
        case Nothing() if there is not None:
            detail = "The registry has recorded no such promotion or verdict."
            return Finding(MirrorDifference.MARKER_UNKNOWN, key, detail)
        case Exactly(_) if there is None:
            detail = "The registry has recorded this, and there is no marker."
            return Finding(MirrorDifference.MARKER_MISSING, key, detail)
        case Exactly(content) if there is not None and not there.holds(content):
            detail = f"A marker is empty, and this object has {there.size_bytes} bytes."
            return Finding(MirrorDifference.MARKER_NOT_EMPTY, key, detail)
    return None


def _artifact_finding(work: RunWork, key: str, wanted: CopyOf, there: ObjectInfo | None) -> Finding | None:
    """Raises PreconditionFailed when the object changes while it is read."""
    if there is None:
        return Finding(MirrorDifference.ARTIFACT_MISSING, key, "There is no such object.")
    if there.size_bytes != wanted.size_bytes:
        detail = f"It has {there.size_bytes} bytes, and {wanted.size_bytes} were recorded."
        return Finding(MirrorDifference.ARTIFACT_DIFFERS, key, detail)
    if wanted.sha256 is None:
        return None
    digest = there.sha256 or work.bucket.digest_of(there, work.check)
    if digest == wanted.sha256:
        return None
    detail = f"Its sha256 is {digest}, and {wanted.sha256} was recorded."
    return Finding(MirrorDifference.ARTIFACT_DIFFERS, key, detail)


def _repair(work: RunWork, seen: Seen) -> Seen:
    """Make the key what it should be, if that was asked for."""
    finding = seen.finding
    if finding is None or not work.options.get("apply"):
        return seen
    work.check()
    if seen.artifact and seen.key.endswith(f"/{keys.MODEL_ZIP}") and not work.options.get("model_zip"):
        return replace(seen, finding=replace(finding, detail=f"{finding.detail} {_NO_CONSENT}."))
    try:
        repaired = settle(work.database, work.bucket, seen.key)
    except Unsettled as exc:
        return replace(seen, finding=replace(finding, detail=f"{finding.detail} {exc}"))
    if not repaired:
        why = "It has the recorded size and no digest of its own, so it was not written again."
        return replace(seen, finding=replace(finding, detail=f"{finding.detail} {why}"))
    return replace(seen, finding=replace(finding, repaired=True))
