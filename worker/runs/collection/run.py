"""Carries a collection out, in its phases. Each of them goes on where a worker before has stopped."""

from app.registry.collection import batches, plan, requests
from app.registry.collection.plan import Plan
from app.registry.collection.report import Report
from app.registry.collection.requests import CollectionRequest
from app.registry.errors import CollectionOff, CollectionTooLarge, PlanChanged
from app.registry.runs import lifecycle
from app.words import CollectionPhase, ModelState, PlanVerdict
from worker import leftovers, unpublished
from worker.errors import RunFailed
from worker.runs.collection.inputs import count_inputs, sweep_inputs
from worker.runs.collection.models import mark_models, sweep_models
from worker.runs.work import RunWork


def collect(work: RunWork) -> None:
    """Mark, sweep, then delete what only collected models and ended builds needed.

    Options are those of CollectionRequest. A dry run writes nothing but its result. Raises RunFailed.
    """
    wanted, report = CollectionRequest.of(work.options), Report.of(work.result)
    if wanted.dry_run:
        _show(work, Report(dry_run=True))
        return
    phases = list(CollectionPhase)
    reached = CollectionPhase(work.checkpoint.get("phase", CollectionPhase.MARK))
    try:
        requests.refuse_if_off(work.settings)
        for phase in phases[phases.index(reached) :]:
            _store(work, report, phase)
            _do(work, report, wanted, phase)
    except (CollectionOff, PlanChanged, CollectionTooLarge) as exc:
        raise RunFailed(exc.message) from exc
    _store(work, report, phases[-1])


def _do(work: RunWork, report: Report, wanted: CollectionRequest, phase: CollectionPhase) -> None:
    match phase:
        case CollectionPhase.MARK:
            # A mark does not change the plan's digest, so this holds too if a worker before has begun.
            current = _plan(work, report)
            with work.transaction() as session:
                requests.refuse_unless_as_seen(session, work.settings, current, wanted)
            mark_models(work, report, current)
        case CollectionPhase.SWEEP:
            sweep_models(work, report)
        case CollectionPhase.INPUTS:
            sweep_inputs(work, report)
        case CollectionPhase.UNPUBLISHED:
            window = work.settings.retry_window
            left = unpublished.sweep(work.database, work.bucket, window, work.check_now)
            left += leftovers.sweep(
                work.database, work.bucket, window, lambda session: lifecycle.confirm(session, work.lease)
            )
            report.unpublished_freed, report.unpublished_freed_bytes = left.objects, left.size_bytes


def _plan(work: RunWork, report: Report) -> Plan:
    with work.transaction() as session:
        current = plan.compute(session, work.settings)
        due = {one.model_id for one in batches.due(session, work.settings.gc_grace, None)}
        report.too_large = requests.size_of(session, work.settings, current).is_too_large
    doomed, kept = current.totals[PlanVerdict.DOOMED], current.totals[PlanVerdict.KEPT]
    report.plan_digest = current.digest
    report.models = doomed.prefixes + kept.prefixes
    report.doomed, report.doomed_bytes = doomed.prefixes, doomed.size_bytes
    report.kept, report.kept_bytes = kept.prefixes, kept.size_bytes
    report.due = sum(one.model_id in due for one in current.models(PlanVerdict.DOOMED))
    return current


def _show(work: RunWork, report: Report) -> None:
    """What a run would do now. What its own sweep would make unneeded is not counted with the inputs."""
    current = _plan(work, report)
    with work.transaction() as session:
        due = {one.model_id for one in batches.due(session, work.settings.gc_grace, None)}
    for one in current.models(PlanVerdict.DOOMED):
        if one.state is ModelState.KEPT:
            report.mark(one.prefix, one.explained[0].text)
        elif one.model_id in due:
            report.free(one.prefix, one.size_bytes)
            report.freed_objects += one.objects
    for one in current.models(PlanVerdict.KEPT):
        if one.state is ModelState.MARKED:
            if batches.is_postponed(one):
                report.postponed += 1
            else:
                report.restore(one.prefix, one.explained[0].text)
    count_inputs(work, report)
    window = work.settings.retry_window
    left = unpublished.count(work.database, work.bucket, window)
    left += leftovers.count(work.database, work.bucket, window)
    report.unpublished_freed, report.unpublished_freed_bytes = left.objects, left.size_bytes
    _store(work, report, CollectionPhase.MARK)


def _store(work: RunWork, report: Report, phase: CollectionPhase) -> None:
    with work.transaction() as session:
        lifecycle.save(session, work.lease, {"phase": phase}, {"phase": phase}, report.as_json())
