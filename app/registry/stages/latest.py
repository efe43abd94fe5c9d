"""The model that a stage runs, as the deploy job needs it: one statement, for one stage or for many."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, Text, bindparam, column, func, select, true
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from app.db.tables import Artifact, Model, Promotion
from app.registry.errors import ArtifactsMissing, NothingPromoted
from app.registry.models.catalogue import ArtifactRef
from app.registry.models.states import Mark
from app.registry.stages import history
from app.words import Stage


@dataclass(frozen=True)
class Asked:
    """A stage, or exactly one version in a stage."""

    stage: Stage
    version: str | None = None


@dataclass(frozen=True)
class Latest:
    """The model that runs in a stage. `missing` names the files that the bucket is known to lack.

    What runs in a stage is always kept. But the newest one of a version there may have been superseded by
    another version, and have been marked or collected since: then `mark` says so.
    """

    promotion_id: int
    prefix: str
    version: str
    sha: str
    verdict: str
    promoted_at: datetime
    promoted_by: str
    artifacts: tuple[ArtifactRef, ...]
    missing: tuple[str, ...]
    mark: Mark | None

    @property
    def available(self) -> bool:
        """Whether its files can be handed out."""
        return not self.missing and self.mark is None

    def check(self) -> None:
        """Raises ModelMarked, ModelCollected and ArtifactsMissing, unless the files can be handed out.

        A URL of a file that is gone would be of no use to anybody.
        """
        if self.mark is not None:
            raise self.mark.refusal(self.prefix)
        if self.missing:
            message = (
                f"The bucket lacks files of {self.prefix}: {', '.join(self.missing)}. Restore them and have "
                "POST /mirror/reconcile look at them, or roll the stage back."
            )
            raise ArtifactsMissing(message, prefix=self.prefix, artifacts=self.missing)


def _query(*, of_version: bool) -> Select[Any]:
    """Everything that the deploy job needs, for each stage (and version) of the parameters.

    The artifacts are arrays. `asked` is the position in the parameters, counted from 1.
    """
    names = ["stage", "version"] if of_version else ["stage"]
    lists = [bindparam(f"{name}s", type_=ARRAY(Text)) for name in names]
    asked = (
        func.unnest(*lists)
        .table_valued(*(column(name, Text) for name in names), with_ordinality="asked")
        .render_derived(name="wanted")
    )
    version = asked.c.version if of_version else None
    newest = aliased(Promotion, history.newest_promotion(asked.c.stage, version).lateral("newest"))

    def by_name(column_: InstrumentedAttribute[Any]) -> Any:
        return func.array_agg(aggregate_order_by(column_, Artifact.name.asc()))

    artifacts = (
        select(
            by_name(Artifact.name).label("names"),
            by_name(Artifact.key).label("bucket_keys"),
            by_name(Artifact.sha256).label("digests"),
            by_name(Artifact.size_bytes).label("sizes"),
            func.array_agg(aggregate_order_by(Artifact.name, Artifact.name.asc()))
            .filter(Artifact.missing_since.is_not(None))
            .label("missing"),
        )
        .where(Artifact.model_id == Model.id)
        .lateral()
    )
    return (
        select(
            asked.c.asked,
            newest.id,
            Model.prefix,
            Model.version,
            Model.sha,
            Model.verdict,
            newest.promoted_at,
            newest.promoted_by,
            artifacts.c.names,
            artifacts.c.bucket_keys,
            artifacts.c.digests,
            artifacts.c.sizes,
            artifacts.c.missing,
            Model.state,
            Model.marked_at,
            Model.mark_reason,
        )
        .select_from(asked)
        .join(newest, true())
        .join(Model, Model.id == newest.model_id)
        .join(artifacts, true())
    )


OF_STAGES = _query(of_version=False)
OF_VERSIONS = _query(of_version=True)


def parameters(asked: Iterable[Asked]) -> dict[str, list[str]]:
    """What OF_STAGES and OF_VERSIONS take. A version that is None is left out."""
    of = list(asked)
    versions = [each.version for each in of if each.version is not None]
    return {"stages": [each.stage.value for each in of]} | ({"versions": versions} if versions else {})


def of_row(row: Sequence[Any]) -> tuple[int, Latest]:
    """A row of OF_STAGES or OF_VERSIONS: the index in the parameters, and what was found for it."""
    files = tuple(ArtifactRef(*of) for of in zip(*(column or () for column in row[8:12]), strict=True))
    number, prefix, version, sha, verdict, promoted_at, promoted_by = row[1:8]
    missing, mark = tuple(row[12] or ()), Mark.of(*row[13:16])
    return row[0] - 1, Latest(
        number, prefix, version, sha, verdict, promoted_at, promoted_by, files, missing, mark
    )


def find(session: Session | Connection, asked: Asked) -> Latest:
    """The model most recently promoted to the stage, or the one of exactly that version. One statement.

    Raises NothingPromoted.
    """
    query = OF_STAGES if asked.version is None else OF_VERSIONS
    row = session.execute(query, parameters([asked])).one_or_none()
    if row is None:
        which = f"No model of version {asked.version}" if asked.version is not None else "No model"
        message = (
            f"{which} was ever promoted to {asked.stage}. "
            "Promote one with POST /models/{prefix}/promotions."
        )
        raise NothingPromoted(message)
    _, found = of_row(row)
    return found
