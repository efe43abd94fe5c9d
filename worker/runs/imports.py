"""Imports the models of a bucket that was filled before this registry existed."""

from collections.abc import Mapping

from app.aws import CloudNotFound
from app.registry import clearing, mirror
from app.registry.errors import Invalid
from app.registry.models import figures
from app.registry.prefixes import Prefix
from app.registry.runs import imports, lifecycle, reconciliation
from app.registry.runs.imports import FoundModel, Report
from app.storage import keys
from app.words import LeftOut
from worker.runs.digests import digest_of
from worker.runs.folders import Folder, Part, parts
from worker.runs.work import RunWork

# A configuration has at most 1 MiB when it is posted.
_CONFIG_LIMIT = 1 << 20

# How many digests are computed before they are stored.
_DIGESTS_TOGETHER = 50


def import_models(work: RunWork) -> None:
    """Adopt what the bucket holds, then compute the digests of what was adopted, by this run or earlier ones.

    Options: `dry_run` only reports what would be adopted, and without `digests` none are computed.
    """
    report = Report.of(work.result)
    report.dry_run = bool(work.options.get("dry_run"))
    after = work.checkpoint.get("after", "")
    # The last part's end is None: everything was adopted, and the digests are next.
    if after is not None:
        for part in parts(work.bucket, str(after)):
            work.check()
            _import_part(work, part, report)
    if work.options.get("digests", True) and not report.dry_run:
        _compute_digests(work, report)


def _import_part(work: RunWork, part: Part, report: Report) -> None:
    folders = [(prefix, folder) for folder in part.folders if (prefix := _prefix_of(folder)) is not None]
    with work.transaction() as session:
        names = [folder.prefix for _, folder in folders]
        known, building = imports.known(session, names), mirror.being_built(session, names)
        cleared = clearing.being_cleared(session, names)
    report.prefixes += len(folders)
    report.known += len(known)
    new = [(prefix, folder) for prefix, folder in folders if folder.prefix not in known | building | cleared]
    found: list[FoundModel] = []
    for (_, folder), one in zip(new, work.each(lambda item: _read(work, *item), new), strict=True):
        if isinstance(one, LeftOut):
            report.leave_out(folder.prefix, one)
        else:
            found.append(one)
    for name in sorted(building - known):
        report.leave_out(name, LeftOut.BUILD_UNDER_WAY)
    for name in sorted(cleared - known - building):
        report.leave_out(name, LeftOut.BEING_DELETED)
    with work.transaction() as session:
        # First the fence: nothing is adopted once the run was stopped.
        lifecycle.fence(session, work.lease)
        # Asked again, because a reconciliation may have been asked to delete some of them since.
        cleared = clearing.being_cleared(session, [str(one.prefix) for one in found])
        for name in sorted(cleared):
            report.leave_out(name, LeftOut.BEING_DELETED)
        found = [one for one in found if str(one.prefix) not in cleared]
        report.adopt(found if report.dry_run else imports.adopt(session, found))
        progress = {"phase": "models", "prefixes": report.prefixes}
        lifecycle.save(session, work.lease, {"after": part.upto}, progress, report.as_json())


def _prefix_of(folder: Folder) -> Prefix | None:
    try:
        return Prefix.parse(folder.prefix)
    except Invalid:
        return None


def _read(work: RunWork, prefix: Prefix, folder: Folder) -> FoundModel | LeftOut:
    """Read the small files of a prefix. What a registry wrote carries the id of a build and is left out."""
    objects = folder.objects
    if keys.MODEL_ZIP not in objects:
        return LeftOut.NO_MODEL
    try:
        config = None
        if keys.SEARCH_CONFIG in objects:
            fetched = work.bucket.fetch(objects[keys.SEARCH_CONFIG].key, _CONFIG_LIMIT)
            config, build_id = fetched.content, fetched.build_id
        else:
            there = work.bucket.head(objects[keys.MODEL_ZIP].key)
            build_id = None if there is None else there.build_id
        if build_id is not None:
            return LeftOut.WRITTEN_BY_A_REGISTRY
        return imports.interpret(prefix, objects, config, _figures(work, folder))
    except CloudNotFound:
        # Somebody deleted it while it was read.
        return LeftOut.NO_MODEL


def _figures(work: RunWork, folder: Folder) -> Mapping[str, Mapping[str, float]]:
    found: figures.Figures = {}
    if keys.BENCHMARK_XML in folder.objects:
        xml = folder.objects[keys.BENCHMARK_XML]
        if xml.size_bytes <= figures.LIMIT_BYTES:
            found = figures.of_xml(work.bucket.fetch(xml.key, figures.LIMIT_BYTES).content)
    if not found and keys.BENCHMARK_ZIP in folder.objects:
        there = work.bucket.head(folder.objects[keys.BENCHMARK_ZIP].key)
        if there is not None:
            with work.bucket.open(there) as file:
                found = figures.of_zip(file)
    return found


def _compute_digests(work: RunWork, report: Report) -> None:
    after = str(work.checkpoint.get("digests_after", ""))
    with work.transaction() as session:
        of = report.digests + imports.count_undigested(session)
    while True:
        with work.transaction() as session:
            batch = imports.undigested(session, after, _DIGESTS_TOGETHER)
        if not batch:
            return
        found = work.each(lambda file: digest_of(work, file.key, file.size_bytes), batch)
        after = batch[-1].key
        with work.transaction() as session:
            lifecycle.fence(session, work.lease)
            for file, digest in zip(batch, found, strict=True):
                if digest is None:
                    reconciliation.remember(session, missing=[file.key])
                else:
                    imports.set_digest(session, file.key, *digest)
                    report.digests += 1
            progress = {"phase": "digests", "digests": report.digests, "of_digests": of}
            checkpoint = {"after": None, "digests_after": after}
            lifecycle.save(session, work.lease, checkpoint, progress, report.as_json())
