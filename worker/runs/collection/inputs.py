"""Deletes the inputs that nothing needs any more."""

from collections.abc import Callable, Collection, Sequence

from sqlalchemy.orm import Session

from app.registry import late_deletes
from app.registry.collection import inputs
from app.registry.collection.inputs import Unneeded
from app.registry.collection.report import Report
from app.registry.runs import lifecycle
from app.storage import keys
from app.words import CollectionPhase
from worker.runs.work import RunWork

# How many are deleted before the run asks again whether it was stopped. They are gone within a second.
_TOGETHER = 100


def sweep_inputs(work: RunWork, report: Report) -> None:
    """Finish what another run has begun, then delete the inputs that nothing needs. Raises CloudError."""
    window = work.settings.retry_window
    while True:
        with work.transaction() as session:
            found = inputs.half_swept(session, _TOGETHER)
        if not found:
            break
        _delete(work, report, found, inputs.sweep_again)
    after = ""
    while True:
        with work.transaction() as session:
            found = inputs.unneeded(session, window, after, _TOGETHER)
        if not found:
            break
        _delete(work, report, found, lambda session, sha256s: inputs.begin_sweep(session, sha256s, window))
        after = found[-1].sha256
    _count_kept(work, report)


def count_inputs(work: RunWork, report: Report) -> None:
    """What `sweep_inputs` would delete now."""
    after = ""
    while True:
        work.check()
        with work.transaction() as session:
            found = inputs.unneeded(session, work.settings.retry_window, after, _TOGETHER)
        if not found:
            break
        _count(report, found)
        after = found[-1].sha256
    _count_kept(work, report)


def _delete(
    work: RunWork,
    report: Report,
    found: Sequence[Unneeded],
    begin: Callable[[Session, Collection[str]], set[str]],
) -> None:
    deleter = work.bucket.deleter
    there = work.each(lambda one: deleter.at(keys.input_key(one.sha256)), found)
    # Signed first: late_deletes says why.
    signed = {
        one.sha256: [deleter.sign(version, late_deletes.EXPIRE_AFTER) for version in versions]
        for one, versions in zip(found, there, strict=True)
    }
    with work.transaction() as session:
        # First the fence: nothing is swept once the run was stopped.
        lifecycle.fence(session, work.lease)
        going = begin(session, signed.keys())
    work.check_now()
    work.each(deleter.send_each, [signed[sha256] for sha256 in going])
    _count(report, [one for one in found if one.sha256 in going])
    with work.transaction() as session:
        progress = {"phase": CollectionPhase.INPUTS, "inputs": report.inputs_freed}
        lifecycle.save(session, work.lease, {"phase": CollectionPhase.INPUTS}, progress, report.as_json())
        inputs.collected(session, going)


def _count(report: Report, found: Sequence[Unneeded]) -> None:
    report.inputs_freed += len(found)
    report.inputs_freed_bytes += sum(one.size_bytes for one in found)


def _count_kept(work: RunWork, report: Report) -> None:
    with work.transaction() as session:
        kept = inputs.kept(session)
    report.inputs_kept, report.inputs_kept_bytes = kept.count, kept.size_bytes
