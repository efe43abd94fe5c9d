"""Deletes what is under prefixes that the registry does not know, each of which a person has named."""

from collections.abc import Sequence

from app.registry import clearing
from app.registry.runs import lifecycle
from app.registry.runs.reconciliation import Report, Stray
from app.storage import keys
from app.storage.deleting import ObjectVersion
from worker.clearing import clear
from worker.runs.work import RunWork


def delete_strays(work: RunWork, report: Report) -> None:
    """Delete the prefixes one after the other. A worker that takes over goes on with the next one."""
    if "after" in work.checkpoint:
        # The comparison has begun, which comes later.
        return
    named = list(dict.fromkeys(work.options.get(clearing.DELETE_STRAYS) or ()))
    for at in range(work.checkpoint.get("strays", 0), len(named)):
        stray = report.recorded(named[at])
        _delete(work, report, stray, at)
        _save(work, report, stray, at + 1, len(named))


def _delete(work: RunWork, report: Report, stray: Stray, at: int) -> None:
    """A listing that breaks off raises CloudError, and then nothing of the prefix is deleted."""
    doomed = list(work.bucket.deleter.under(keys.folder(stray.prefix)))

    def deleted(gone: Sequence[ObjectVersion]) -> None:
        stray.objects += len(gone)
        stray.size_bytes += sum(one.size_bytes for one in gone)
        _save(work, report, stray, at, at + 1)

    stray.kept_because = clear(
        work.database,
        work.bucket,
        stray.prefix,
        doomed,
        work.settings.retry_window,
        check=lambda session: lifecycle.confirm(session, work.lease),
        deleted=deleted,
    )


def _save(work: RunWork, report: Report, stray: Stray, done: int, of: int) -> None:
    report.record(stray)
    with work.transaction() as session:
        progress = {"strays": done, "of_strays": of}
        lifecycle.save(session, work.lease, {"strays": done}, progress, report.as_json())
