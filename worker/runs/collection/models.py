"""Marks the models that may go, and deletes the objects of those that were marked long enough ago.

Everything is decided in short transactions under the models' locks. Objects are deleted in between, without a
session. Nobody writes under the prefix of such a model again, so it does no harm if a delete comes late, or
twice.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.orm import Session

from app.registry.collection import batches
from app.registry.collection.batches import Due, Outcome, Swept
from app.registry.collection.plan import Plan
from app.registry.collection.report import Report
from app.registry.models import documents
from app.registry.runs import lifecycle
from app.storage import keys
from app.storage.deleting import ObjectVersion, in_order
from app.words import CollectionPhase, ModelState
from worker.runs.work import RunWork

# How many models are locked and stored together.
_TOGETHER = 100

# How many objects are deleted before the run asks again whether it was stopped. S3 takes up to 1,000, but a
# run that is stopped must end within a second.
_OBJECTS_TOGETHER = 250


def mark_models(work: RunWork, report: Report, plan: Plan) -> None:
    """Mark what the plan dooms, and restore what is marked and must be kept again."""
    concerned = [one for one in plan.models() if one.is_doomed == (one.state is ModelState.KEPT)]
    for start in range(0, len(concerned), _TOGETHER):
        work.check()
        with work.transaction() as session:
            # First the fence: nothing is marked once the run was stopped.
            lifecycle.fence(session, work.lease)
            few = concerned[start : start + _TOGETHER]
            _add(report, batches.mark(session, work.settings, few, work.lease.run_id))
            _save(work, session, report, CollectionPhase.MARK)


def sweep_models(work: RunWork, report: Report) -> None:
    """Finish what another run has begun, then sweep the models whose grace period is over."""
    _delete_objects(work, report)
    after: Due | None = None
    while True:
        work.check()
        with work.transaction() as session:
            due = batches.due(session, work.settings.gc_grace, after, _TOGETHER)
        if not due:
            return
        saved = _documents(work, due)
        with work.transaction() as session:
            lifecycle.fence(session, work.lease)
            outcome = batches.begin_sweep(session, work.settings, due, saved)
            _add(report, outcome)
            report.postponed += len(outcome.postponed)
            _save(work, session, report, CollectionPhase.SWEEP)
        _delete_objects(work, report)
        after = due[-1]


def _documents(work: RunWork, due: Sequence[Due]) -> dict[UUID, dict[str, bytes]]:
    """What stays readable of the models, from the bucket."""
    with work.transaction() as session:
        wanted = documents.to_save(session, [one.model_id for one in due])
    found = work.each(lambda files: documents.fetch(work.bucket, files), wanted.values())
    return dict(zip(wanted, found, strict=True))


def _delete_objects(work: RunWork, report: Report) -> None:
    """Delete the objects of every model that is being swept, a few models at a time. Raises CloudError."""
    while True:
        with work.transaction() as session:
            models = batches.sweeping(session, _TOGETHER)
        if not models:
            return
        doomed = [one for objects in work.each(lambda one: _objects(work, one), models) for one in objects]
        for part in in_order(doomed):
            for start in range(0, len(part), _OBJECTS_TOGETHER):
                work.check_now()
                work.bucket.deleter.together(part[start : start + _OBJECTS_TOGETHER])
        with work.transaction() as session:
            lifecycle.fence(session, work.lease)
            batches.collected(session, models)
            report.freed_objects += len(doomed)
            for model in models:
                report.free(model.prefix, model.size_bytes)
            _save(work, session, report, CollectionPhase.SWEEP)


def _objects(work: RunWork, model: Swept) -> list[ObjectVersion]:
    """Everything under the model's prefix: what was recorded, and whatever a listing to its end shows.

    The listing alone would do if nothing else lay there, and the record alone would leave what others put
    there. A listing that breaks off raises CloudError, and then nothing of the model is deleted.
    """
    deleter = work.bucket.deleter
    listed = list(deleter.under(keys.folder(model.prefix)))
    if deleter.every_version:
        # To delete what is not there would leave a delete marker.
        return listed
    there = {one.key for one in listed}
    return [*listed, *(ObjectVersion(key) for key in model.keys if key not in there)]


def _add(report: Report, outcome: Outcome) -> None:
    for prefix, reason in outcome.marked.items():
        report.mark(prefix, reason)
    for prefix, reason in outcome.restored.items():
        report.restore(prefix, reason)
    for prefix, reason in outcome.refused.items():
        report.refuse(prefix, reason)


def _save(work: RunWork, session: Session, report: Report, phase: CollectionPhase) -> None:
    progress = {
        "phase": phase,
        "doomed": report.doomed,
        "marked": report.marked,
        "freed": report.freed,
        "of": report.due,
    }
    lifecycle.save(session, work.lease, {"phase": phase}, progress, report.as_json())
