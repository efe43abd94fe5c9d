"""Runs: imports, reconciliations and collections; and the mirror's backlog."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool

from app.api.common import examples
from app.api.common.deps import (
    AnyCaller,
    BetweenDep,
    CanAdminister,
    CanCollect,
    Db,
    Limit,
    NextCursor,
    PageCursor,
    SettingsDep,
)
from app.api.common.errors import problems
from app.api.common.shown import ShownActor, ShownMessage, ShownRunKind, ShownRunState
from app.api.common.strict import StrictRoute
from app.api.common.text import Line
from app.db.tables import Run
from app.registry import clearing, mirror
from app.registry.collection import requests
from app.registry.collection.requests import CollectionRequest
from app.registry.errors import (
    CollectionOff,
    CollectionTooLarge,
    Invalid,
    NotAStray,
    NotFound,
    PlanChanged,
    RunActive,
)
from app.registry.prefixes import Prefix
from app.registry.runs import lifecycle
from app.words import RunKind, RunState, Scope

router = APIRouter(tags=["runs"], route_class=StrictRoute)


class RunOut(BaseModel):
    """A long piece of work that a person or the schedule asked for."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.RUN]})

    id: UUID
    kind: ShownRunKind
    state: ShownRunState
    options: dict[str, Any] = Field(description="What was asked for: the fields of the request.")
    requested_by: str
    requested_by_kind: ShownActor
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    stopped_by: str | None = Field(description="Who stopped it. Null unless its state is `stopped`.")
    progress: dict[str, Any] | None = Field(
        description="How far it has got. Null before its first part is done."
    )
    result: dict[str, Any] | None = Field(
        description="What it has found and done so far. Its counts are of everything; a list in it names "
        f"only the first {lifecycle.LISTED}. docs/api.md describes the fields of each kind."
    )
    waits_for: ShownMessage | None = Field(
        description="Why it does not get any further at the moment, such as an error of S3."
    )
    failure: ShownMessage | None = Field(description="Why it failed. Null unless its state is `failed`.")

    @classmethod
    def brief(cls, run: Run) -> Self:
        """The run without the keys and prefixes that its result names, of which there can be many."""
        shown = cls.of(run)
        if shown.result is not None:
            counts = {name: value for name, value in shown.result.items() if not isinstance(value, list)}
            shown.result = counts
        return shown

    @classmethod
    def of(cls, run: Run) -> Self:
        return cls(
            id=run.id,
            kind=run.kind,
            state=run.state,
            options=run.options,
            requested_by=run.requested_by,
            requested_by_kind=run.requested_by_kind,
            created_at=run.created_at,
            started_at=run.started_at,
            finished_at=run.finished_at,
            stopped_by=run.stopped_by,
            progress=run.progress,
            result=run.result,
            waits_for=run.last_error if run.finished_at is None else None,
            failure=run.failure,
        )


class RunPage(BaseModel):
    """Runs, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [examples.RUN], "next": None}]})

    items: list[RunOut]
    next: NextCursor


def _prefix(text: str) -> str:
    try:
        return str(Prefix.parse(text))
    except Invalid as exc:
        raise ValueError(exc.message) from exc


StrayPrefix = Annotated[Line, AfterValidator(_prefix)]


class ReconciliationCreate(BaseModel):
    """What may be repaired. Without anything, differences are only reported."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"apply": True}]})

    apply: StrictBool = Field(
        default=False, description="Repair markers, and files of which the registry has another copy."
    )
    model_zip: StrictBool = Field(
        default=False,
        description="With `apply`, also write a missing or different model.zip again. Existing tools then "
        "take it for the newest model of its version.",
    )
    delete_strays: list[StrayPrefix] = Field(
        default_factory=list,
        max_length=50,
        description="Delete everything under these prefixes, of which the registry has no model. An earlier "
        "reconciliation names them as `unknown_prefix`. This does not need `apply`.",
        examples=[["0.0.9-abcdef1"]],
    )


class ImportCreate(BaseModel):
    """How to import the models of a bucket that was filled before this registry existed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"dry_run": True}]})

    dry_run: StrictBool = Field(
        default=False, description="Only report what would be imported. Nothing is recorded."
    )
    digests: StrictBool = Field(
        default=True,
        description="Also compute the digests of all imported files that have none, which reads every file. "
        "Without, another import computes them.",
    )


class CollectionCreate(BaseModel):
    """What a collection may do. Without anything, it only shows what it would do."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"dry_run": False}]},
    )

    dry_run: StrictBool = Field(
        default=True, description="Only show what would be marked and deleted now. Nothing is changed."
    )
    plan_digest: Line | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="The digest of the plan, which GET /gc/plan has, and the result of a dry run. The run "
        "is refused if other models may go by now.",
    )
    allow_large: StrictBool = Field(
        default=False,
        description="Allow that a larger share of all models is marked or deleted than "
        "`REGISTRY_GC_MOST_AT_ONCE` says.",
    )


class WaitingOut(BaseModel):
    """A key that the mirror still has to look at."""

    key: str = Field(examples=[f"{examples.PREFIX}/staging"])
    asked_at: datetime
    attempts: int
    next_attempt_at: datetime
    error: ShownMessage | None = Field(description="What went wrong at the last attempt.")


class MirrorOut(BaseModel):
    """What the bucket does not mirror yet."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.MIRROR]})

    waiting: int = Field(description="How many keys wait. It is 0 when the bucket mirrors everything.")
    since: datetime | None = Field(description="Since when the first of them waits.")
    first: list[WaitingOut] = Field(description="Up to 50 of the keys, those that have waited longest first.")


RunId = Annotated[UUID, Path(description="The run's id.")]


@router.get(
    "/runs",
    operation_id="runs:list",
    summary="Imports, reconciliations and collections, newest first",
    response_description="A page of runs",
    responses=problems(),
)
def list_runs(
    db: Db,
    cursor: PageCursor,
    between: BetweenDep,
    limit: Limit = 50,
    kind: Annotated[RunKind | None, Query(description="Only runs of this kind.")] = None,
    state: Annotated[RunState | None, Query(description="Only runs in this state.")] = None,
) -> RunPage:
    """The runs with their progress and counts; GET /runs/{id} also names what a run found.

    If there are several filters, a run must match all.
    """
    page = lifecycle.find(db, limit=limit, cursor=cursor, kind=kind, state=state, between=between)
    return RunPage(items=[RunOut.brief(run) for run in page.items], next=page.next_cursor)


@router.get(
    "/runs/{id}",
    operation_id="runs:get",
    summary="One run",
    response_description="The run",
    responses=problems(NotFound),
)
def get(id: RunId, db: Db) -> RunOut:  # noqa: A002 - the contract's name
    """The run with its progress, and with what it has found and done so far."""
    return RunOut.of(lifecycle.get(db, id))


@router.post(
    "/runs/{id}/stop",
    operation_id="runs:stop",
    summary="Stop a run",
    response_description="The run as it is now",
    responses=problems(NotFound),
)
def stop(id: RunId, who: AnyCaller, db: Db) -> RunOut:  # noqa: A002 - the contract's name
    """End the run with what it has done so far. It changes nothing any more from then on.

    A run that has ended stays as it is, so the call can be repeated. Stopping a collection needs the scope
    `collect`, and stopping anything else needs `admin`.
    """
    kind = lifecycle.get(db, id).kind
    who.need(Scope.COLLECT if kind == RunKind.COLLECTION else Scope.ADMIN)
    return RunOut.of(lifecycle.stop(db, id, who.name, who.kind))


@router.get(
    "/mirror",
    operation_id="runs:backlog",
    summary="What the bucket does not mirror yet",
    response_description="The backlog",
    responses=problems(),
)
def backlog(db: Db) -> MirrorOut:
    """The keys of the bucket that a worker still has to look at.

    They wait while S3 cannot be reached, and are worked off by themselves once it can.
    """
    found = mirror.backlog(db)
    return MirrorOut(
        waiting=found.waiting,
        since=found.since,
        first=[
            WaitingOut(
                key=one.key,
                asked_at=one.asked_at,
                attempts=one.attempts,
                next_attempt_at=one.next_attempt_at,
                error=one.last_error,
            )
            for one in found.first
        ],
    )


@router.post(
    "/mirror/reconcile",
    operation_id="runs:reconcile",
    summary="Compare the bucket with the registry",
    status_code=202,
    response_description="The run that does it",
    responses=problems(RunActive, NotAStray),
)
def reconcile(body: ReconciliationCreate, who: CanAdminister, settings: SettingsDep, db: Db) -> RunOut:
    """Find markers that are missing or unknown, files that are missing or different, and stray objects.

    Files that the bucket does not hold are remembered: their models are no longer handed out or promoted
    until they are back. With `apply`, what can be repaired without harm is repaired. `delete_strays` deletes
    what is under prefixes that the registry does not know; each must be named.
    """
    clearing.refuse_unless_strays(db, body.delete_strays, settings.retry_window)
    return RunOut.of(lifecycle.request(db, RunKind.RECONCILIATION, body.model_dump(), who.name, who.kind))


@router.post(
    "/imports",
    operation_id="runs:import",
    summary="Import the models of a bucket that was filled before",
    status_code=202,
    response_description="The run that does it",
    responses=problems(RunActive),
)
def import_models(body: ImportCreate, who: CanAdminister, db: Db) -> RunOut:
    """Record every model that other tools have put into the bucket, with its figures and promotions.

    Nothing in the bucket is changed. Prefixes that the registry knows are left alone, so another import
    records only what is new.
    """
    return RunOut.of(lifecycle.request(db, RunKind.IMPORT, body.model_dump(), who.name, who.kind))


@router.post(
    "/gc/runs",
    operation_id="runs:collect",
    summary="Carry garbage collection out",
    status_code=202,
    response_description="The run that does it",
    responses=problems(RunActive, CollectionOff, PlanChanged, CollectionTooLarge),
)
def collect(body: CollectionCreate, who: CanCollect, settings: SettingsDep, db: Db) -> RunOut:
    """Mark the models that may go, and delete those that were marked longer ago than the grace period.

    A marked model is not handed out and not promoted. Until its files are deleted, it can be restored.
    Inputs that only deleted models were made from go too, and what ended builds have left. Stop the run with
    POST /runs/{id}/stop: from then on nothing more is deleted.
    """
    wanted = CollectionRequest(body.dry_run, body.plan_digest, body.allow_large)
    return RunOut.of(requests.request(db, settings, wanted, who.name, who.kind))
