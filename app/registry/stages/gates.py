"""The gates in front of a stage, and whether a model passes through them."""

from collections.abc import Iterator

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from app.db.tables import Model, Promotion
from app.registry.errors import BucketUnavailable, GateRefused, RegistryError
from app.registry.models import signatures
from app.registry.models.catalogue import ArtifactRef
from app.registry.models.wholeness import Findings
from app.words import Stage, Verdict


def closed(session: Session, model: Model, stage: Stage, findings: Findings) -> Iterator[RegistryError]:
    """The reasons to refuse the promotion: first those that the database knows, then those of S3."""
    before = stage.before
    if before is not None and not was_in(session, model, before):
        message = (
            f"{model.prefix} was never in {before}, and {stage} takes only models that were. "
            f"Promote it to {before} first, or send override with a note that says why."
        )
        yield GateRefused(message, gate="stage_order", required_stage=before)
    # Development is where a model that did not pass its validation can be examined.
    if stage is not Stage.DEVELOPMENT and model.verdict != Verdict.PASSED:
        message = (
            f"{model.prefix} has the verdict {model.verdict} ({model.verdict_reason}), and {stage} takes "
            "only models that passed. Train a better one, or send override with a note that says why."
        )
        yield GateRefused(message, gate="verdict")
    if stage is Stage.PRODUCTION:
        yield from _signature(session, model, findings)
    yield from artifacts(model, findings)


def _signature(session: Session, model: Model, findings: Findings) -> Iterator[RegistryError]:
    if signatures.is_owed(session, model):
        message = (
            f"{model.prefix} is not signed, although models have been since before it was published. Look "
            f"whether each worker has the key, and have it signed with POST /models/{model.prefix}/sign, or "
            "send override with a note that says why."
        )
        yield GateRefused(message, gate="signature")
    if findings.signature is not None:
        message = (
            f"The signature of {model.prefix} does not hold: {findings.signature}. Find out who has changed "
            "it, or send override with a note that says why."
        )
        yield GateRefused(message, gate="signature")


def artifacts(model: Model, findings: Findings) -> Iterator[RegistryError]:
    """The reasons to take the model's files for incomplete."""
    if names := lacking(model, findings):
        message = (
            f"The bucket lacks files of {model.prefix}, or has other content there: {', '.join(names)}. "
            "Restore them and have POST /mirror/reconcile look at them, or send override with a note that "
            "says why."
        )
        yield GateRefused(message, gate="artifacts", artifacts=names)
    if findings.unavailable is not None:
        message = (
            f"S3 cannot say whether the files of {model.prefix} are there: {findings.unavailable}. "
            "Send the request again, or send override with a note that says why."
        )
        yield BucketUnavailable(message)


def lacking(model: Model, findings: Findings) -> tuple[str, ...]:
    """The files that S3 lacks, or that were found to be missing before and have not been looked at since."""
    known = {file.name for file in model.artifacts if file.missing_since is not None}
    return tuple(sorted(known.union(findings.lacking)))


def was_in(session: Session, model: Model, stage: Stage) -> bool:
    """Whether the model was ever promoted to the stage."""
    been_in = exists().where(Promotion.model_id == model.id, Promotion.stage == stage)
    return bool(session.scalar(select(been_in)))


def files(model: Model) -> tuple[ArtifactRef, ...]:
    """The files that S3 must be asked for."""
    return tuple(
        ArtifactRef(file.name, file.key, file.sha256, file.size_bytes)
        for file in model.artifacts
        if file.missing_since is None
    )
