"""What is known of the git repository's branches and of the models' commits, as the worker has read it."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from app.db.tables import GitBranch, GitRepository, Model, ModelCommit

# So many rows are sent to the database at a time.
_BATCH = 5_000


@dataclass(frozen=True)
class Commit:
    """The commit of a model.

    `seen` is the whole commit if it was ever seen in this repository. Without a row, nobody has looked yet.
    """

    model_id: UUID
    sha: str
    seen: str | None
    holders: tuple[str, ...]
    has_row: bool


@dataclass(frozen=True)
class Look:
    """What a look at the repository has found. `counting` are the branches that keep models."""

    began_at: datetime
    remote: str
    main: str
    heads: Mapping[str, str]
    counting: Collection[str]

    @property
    def fingerprint(self) -> str:
        """Where the commits of models are follows from this."""
        what = [self.remote, self.main, sorted(self.heads.items()), sorted(self.counting)]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


@dataclass(frozen=True)
class Place:
    """Where the commit of a model is: all its digits, if it was seen, and branches that hold it."""

    model_id: UUID
    sha: str | None
    holders: tuple[str, ...]


def now(session: Session) -> datetime:
    moment: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return moment


def is_known(session: Session, look: Look) -> bool:
    """Whether the last look has found the same, and every model's commit has been looked for."""
    repository = session.get(GitRepository, 1)
    if repository is None or repository.fingerprint != look.fingerprint:
        return False
    missing = select(Model.id).where(~select(ModelCommit).where(ModelCommit.model_id == Model.id).exists())
    return session.scalar(missing.limit(1)) is None


def commits(session: Session, remote: str) -> list[Commit]:
    """The commits of all models. What was seen in another repository says nothing about this one."""
    repository = session.get(GitRepository, 1)
    is_same = repository is not None and repository.remote == remote
    rows = session.execute(
        select(Model.id, Model.sha, ModelCommit.sha, ModelCommit.holders, ModelCommit.model_id).outerjoin(
            ModelCommit, ModelCommit.model_id == Model.id
        )
    )
    return [
        Commit(id_, sha, seen, tuple(holders or ()), row is not None)
        if is_same
        else Commit(id_, sha, None, (), has_row=False)
        for id_, sha, seen, holders, row in rows
    ]


def confirm(session: Session, look: Look) -> None:
    """Record that the repository is still as the last look has found it."""
    repository = _locked(session)
    if repository.fingerprint == look.fingerprint:
        repository.fetched_at = repository.attempted_at = look.began_at
        repository.problem = None


def store(session: Session, look: Look, before: Sequence[Commit], places: Sequence[Place]) -> None:
    """Replace what is known by what a look has found.

    Readers see either all of it or nothing. If another worker has looked later meanwhile, nothing is stored.
    """
    repository = _locked(session)
    if repository.fetched_at is not None and repository.fetched_at > look.began_at:
        return
    same = repository.remote == look.remote
    repository.main_names = sorted({look.main, *(repository.main_names if same else ())})
    repository.remote, repository.main_branch = look.remote, look.main
    repository.fetched_at = repository.attempted_at = look.began_at
    repository.fingerprint, repository.problem = look.fingerprint, None
    session.execute(delete(GitBranch))
    branches = [
        {"name": name, "sha": sha, "counts": name in look.counting} for name, sha in look.heads.items()
    ]
    for start in range(0, len(branches), _BATCH):
        session.execute(insert(GitBranch), branches[start : start + _BATCH])
    if not same:
        session.execute(delete(ModelCommit))
    known = {each.model_id: (each.seen, each.holders) for each in before if each.has_row}
    changed = [
        {"model_id": place.model_id, "sha": place.sha, "holders": list(place.holders) or None}
        for place in places
        if known.get(place.model_id) != (place.sha, place.holders)
    ]
    statement = upsert(ModelCommit)
    statement = statement.on_conflict_do_update(
        index_elements=[ModelCommit.model_id],
        set_={"sha": statement.excluded.sha, "holders": statement.excluded.holders},
    )
    for start in range(0, len(changed), _BATCH):
        session.execute(statement, changed[start : start + _BATCH])


def record_problem(session: Session, problem: str) -> None:
    """Record why a look has not succeeded. What was known before stays, and grows old."""
    repository = _locked(session)
    repository.attempted_at = now(session)
    repository.problem = problem


def _locked(session: Session) -> GitRepository:
    session.execute(
        upsert(GitRepository).values(id=1, attempted_at=func.clock_timestamp()).on_conflict_do_nothing()
    )
    return session.execute(
        select(GitRepository).with_for_update().execution_options(populate_existing=True)
    ).scalar_one()
