"""Puts lost files of a model back, where the reproduction has made exactly the same."""

from app.db.tables import Model
from app.registry import mirror
from app.registry.builds.steps import BuildView
from app.registry.mirror import CopyOf
from app.registry.models.catalogue import ArtifactRef
from app.registry.reproductions.outcomes import NotRepaired, Outcome, Wanted
from app.registry.reproductions.recorded import Recorded
from app.storage import keys
from worker.mirror import Unsettled, matches, settle
from worker.steps.collect import Collect
from worker.steps.step import output_of
from worker.workbench import Workbench

_NO_CONSENT = (
    "model.zip is written again only with `model_zip`: existing tools take the newest for the latest"
)


def repair(build: BuildView, work: Workbench, known: Recorded, outcome: Outcome) -> Outcome:
    """Have the mirror make each lost file what it should be. To do so again changes nothing.

    The mirror copies only what has the recorded digest, and only if the object has not changed since it was
    looked at. Raises CloudError.
    """
    made = {file.sha256 for file in output_of(build, Collect).all_files.values()}
    model_zip = Wanted.of(build.reproduction_wanted).model_zip
    repaired: list[str] = []
    not_repaired: list[NotRepaired] = []
    for name, file in sorted(known.artifacts.items()):
        work.check()
        reason = _why_not(work, known, file, made, consent=model_zip or name != keys.MODEL_ZIP)
        if reason is None:
            repaired.append(name)
        elif reason:
            not_repaired.append(NotRepaired(name=name, reason=reason))
    return outcome.model_copy(update={"repaired": tuple(repaired), "not_repaired": tuple(not_repaired)})


def _why_not(
    work: Workbench, known: Recorded, file: ArtifactRef, made: set[str], *, consent: bool
) -> str | None:
    """None if the file was put back. Empty if it was never lost."""
    there = work.clouds.bucket.head(file.key)
    with work.transaction() as session:
        [model] = mirror.recorded(session, Model.id == known.model_id)
    wanted = mirror.of_model(model, file.name)
    if matches(there, wanted):
        # An earlier try may have put it back and died before that was recorded.
        return None if model.artifacts[file.name].missing and file.sha256 in made else ""
    if not isinstance(wanted, CopyOf):
        return "the registry does not keep it any more"
    if file.sha256 not in made:
        return "the reproduction did not make exactly the same file"
    if not consent:
        return _NO_CONSENT
    try:
        settle(work.database, work.clouds.bucket, file.key)
    except Unsettled as exc:
        return str(exc)
    return None
