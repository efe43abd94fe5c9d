"""Which models an input went into, and in which stages these models run now."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    exists,
    literal,
    null,
    or_,
    select,
    text,
    true,
    tuple_,
    union,
)
from sqlalchemy.orm import Session, joinedload

from app.db.tables import BuildInput, Input, InputPart, Model, Promotion
from app.registry.errors import NotFound
from app.registry.pages import Cursor, Page
from app.registry.stages.history import newest_promotion
from app.words import InputKind, NotTraced, Stage

# The inputs that are archives, whose files are inputs too.
_ARCHIVES = (InputKind.RAW_DATA, InputKind.BENCHMARK_DATA)


@dataclass(frozen=True)
class Wanted:
    """An input, or a file inside one: by its content, or by its name. One of both is given."""

    sha256: str | None = None
    name: str | None = None

    @property
    def whole(self) -> ColumnElement[bool]:
        """Whether the use of an input is a use of this one."""
        if self.sha256 is not None:
            return BuildInput.sha256 == self.sha256
        return BuildInput.name == self.name

    @property
    def part(self) -> ColumnElement[bool]:
        """Whether a file inside an archive is this one."""
        if self.sha256 is not None:
            return InputPart.sha256 == self.sha256
        return InputPart.path == self.name

    def __str__(self) -> str:
        return f"the sha256 {self.sha256}" if self.sha256 is not None else f"the name {self.name!r}"


@dataclass(frozen=True)
class Use:
    """How an input went into a build. `path` and `lines` are those of a file inside the named archive."""

    kind: str
    name: str
    sha256: str | None
    path: str | None
    lines: int | None


@dataclass(frozen=True)
class User:
    """A model that an input went into."""

    model: Model
    runs_in: tuple[str, ...]
    uses: tuple[Use, ...]


@dataclass(frozen=True)
class Running:
    """A model that runs in a stage now."""

    stage: str
    prefix: str
    since: datetime


@dataclass(frozen=True)
class NotKnown:
    """A model that runs in a stage now, and of which nobody can tell whether the input went into it."""

    running: Running
    why: NotTraced


@dataclass(frozen=True)
class Users:
    """The models that an input went into, those of the newest builds first, and what runs now.

    `collected_at` is when garbage collection had deleted the content, if one was asked for.
    """

    collected_at: datetime | None
    running: tuple[Running, ...]
    not_known: tuple[NotKnown, ...]
    page: Page[User]


def find(session: Session, wanted: Wanted, *, limit: int, cursor: Cursor | None = None) -> Users:
    """A page of the models. Raises NotFound for an input that no build has used."""
    if cursor is not None:
        cursor.check(UUID)
    # One input went into a third of all models and another one into a single model. A plan for all of them
    # would be 15 times slower than a plan for the one that is asked for.
    session.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
    is_whole = _is_known(session, wanted)
    rows = session.execute(_newest_builds(wanted, limit + 1, cursor)).all()
    shown = [build_id for _, build_id in rows[:limit]]
    current = _current(session)
    ids = {*shown, *(model.build_id for _, model in current if model.build_id is not None)}
    uses = _uses(session, wanted, ids)
    models = {
        model.build_id: model for model in session.scalars(select(Model).where(Model.build_id.in_(shown)))
    }
    users = [
        User(
            models[build_id],
            tuple(running.stage for running, model in current if model.build_id == build_id),
            tuple(uses[build_id]),
        )
        for build_id in shown
    ]
    # A file of a transformer may be in other transformers too.
    kinds = {*_ARCHIVES, *(use.kind for found in uses.values() for use in found if use.path is not None)}
    not_traced = set() if is_whole else _not_traced(session, ids - set(uses), kinds)
    not_known = []
    for running, model in current:
        if model.build_id is None:
            not_known.append(NotKnown(running, NotTraced.IMPORTED))
        elif model.build_id in not_traced:
            not_known.append(NotKnown(running, NotTraced.FILES_NOT_RECORDED))
    more = Cursor(rows[limit - 1][0], rows[limit - 1][1]) if len(rows) > limit else None
    return Users(
        _collected_at(session, wanted),
        tuple(running for running, model in current if model.build_id in uses),
        tuple(not_known),
        Page(users, more),
    )


def _is_known(session: Session, wanted: Wanted) -> bool:
    """Whether it is an input itself, and not only a file inside one. Raises NotFound if it is neither."""
    # In an order that an index has. Without one, Postgres expects to find a common input soon by reading the
    # table, and may read half of it.
    newest = (BuildInput.build_created_at.desc(), BuildInput.build_id.desc())
    whole = session.scalar(select(BuildInput.build_id).where(wanted.whole).order_by(*newest).limit(1))
    part = session.scalar(select(InputPart.path).where(wanted.part).limit(1))
    if whole is None and part is None:
        message = (
            f"No input and no file inside an archive has {wanted}. "
            "GET /models/{prefix}/lineage names the inputs of a model."
        )
        raise NotFound(message)
    return whole is not None


def _collected_at(session: Session, wanted: Wanted) -> datetime | None:
    if wanted.sha256 is None:
        return None
    return session.scalar(select(Input.collected_at).where(Input.sha256 == wanted.sha256))


def _newest_builds(wanted: Wanted, limit: int, cursor: Cursor | None) -> Select[datetime, UUID]:
    """The times and ids of the newest builds with a model that used it.

    For each archive that holds the file, and for the input itself, the rows of the page are read from an
    index in their order, however many builds used it.
    """
    parts = select(InputPart.container.label("sha256")).where(wanted.part)
    if wanted.sha256 is not None:
        contents = union(select(literal(wanted.sha256).label("sha256")), parts).subquery()
    else:
        contents = parts.distinct().subquery()
    of_content = _newest(BuildInput.sha256 == contents.c.sha256, limit, cursor).lateral()
    found = select(of_content.c.at, of_content.c.build_id).select_from(contents.join(of_content, true()))
    if wanted.name is not None:
        by_name = _newest(wanted.whole, limit, cursor).subquery()
        every = union(found, select(by_name.c.at, by_name.c.build_id)).subquery()
    else:
        every = found.distinct().subquery()
    return (
        select(every.c.at, every.c.build_id).order_by(every.c.at.desc(), every.c.build_id.desc()).limit(limit)
    )


def _newest(condition: ColumnElement[bool], limit: int, cursor: Cursor | None) -> Select[datetime, UUID]:
    at, build_id = BuildInput.build_created_at, BuildInput.build_id
    query = (
        select(at.label("at"), build_id)
        .distinct()
        .where(condition, exists().where(Model.build_id == build_id))
    )
    if cursor is not None:
        query = query.where(tuple_(at, build_id) < (cursor.at, cursor.id))
    return query.order_by(at.desc(), build_id.desc()).limit(limit)


def _current(session: Session) -> list[tuple[Running, Model]]:
    """What runs in each stage now."""
    found = []
    for stage in Stage:
        newest = session.scalar(newest_promotion(stage).options(joinedload(Promotion.model)))
        if newest is not None:
            found.append((Running(newest.stage, newest.model.prefix, newest.promoted_at), newest.model))
    return found


def _uses(session: Session, wanted: Wanted, builds: Collection[UUID]) -> dict[UUID, list[Use]]:
    """How these builds used it, by build. Those that did not use it are left out."""
    these = BuildInput.build_id.in_(builds)
    whole = select(
        BuildInput.build_id, BuildInput.kind, BuildInput.name, BuildInput.sha256, null(), null()
    ).where(these, wanted.whole)
    parts = (
        select(
            BuildInput.build_id,
            BuildInput.kind,
            BuildInput.name,
            InputPart.sha256,
            InputPart.path,
            InputPart.lines,
        )
        .join(InputPart, InputPart.container == BuildInput.sha256)
        .where(these, wanted.part)
    )
    found: dict[UUID, list[Use]] = {}
    # Two statements, because Postgres would start parallel workers for the union, which takes 16 ms.
    rows = [*session.execute(whole), *session.execute(parts)]
    for build_id, kind, name, sha256, path, lines in rows:
        found.setdefault(build_id, []).append(Use(kind, name, sha256, path, lines))
    for uses in found.values():
        uses.sort(key=lambda use: (use.kind, use.name, use.path or ""))
    return found


def _not_traced(session: Session, builds: Collection[UUID], kinds: Collection[str]) -> set[UUID]:
    """Those of the builds that used an input of these kinds whose files are not known."""
    return set(
        session.scalars(
            select(BuildInput.build_id)
            .join(Input, Input.sha256 == BuildInput.sha256)
            .where(
                BuildInput.build_id.in_(builds),
                BuildInput.kind.in_(kinds),
                or_(Input.parts_recorded_at.is_(None), Input.parts_problem.is_not(None)),
            )
        )
    )
