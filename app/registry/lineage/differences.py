"""What differs between the inputs of two models."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.tables import Build, BuildInput, Input, InputPart, Model
from app.registry.lineage import facts
from app.registry.lineage.facts import FactsCompared, Side
from app.registry.models import catalogue
from app.words import FileChange, InputKind
from training.config import Difference, differences

# The inputs that consist of files.
_ARCHIVES = (InputKind.RAW_DATA, InputKind.BENCHMARK_DATA, InputKind.TRANSFORMER)
# How many files are told. Two archives of 100,000 files each must not make a long answer.
MOST_FILES = 200


@dataclass(frozen=True)
class InputDifference:
    """An input by its digest, or by its origin if it has none. None if that model lacks it."""

    kind: str
    name: str
    this: str | None
    other: str | None


@dataclass(frozen=True)
class FileDifference:
    """A file inside an archive that both models have in different versions, with the lines of tables."""

    archive: str
    path: str
    change: FileChange
    lines: int | None
    other_lines: int | None


@dataclass(frozen=True)
class Differences:
    """What this model was made from, and the other one was not. `config` has the other's values as `there`.

    `files` are the first ones by archive and path, and `files_total` counts all.
    """

    commit: str
    other_commit: str
    config: tuple[Difference, ...]
    inputs: tuple[InputDifference, ...]
    files: tuple[FileDifference, ...]
    files_total: int
    facts: FactsCompared
    not_known: tuple[str, ...]


def between(session: Session, prefix: str, other: str) -> Differences:
    """What differs between the inputs of two models. Raises NotFound."""
    mine, theirs = catalogue.get_with_artifacts(session, prefix), catalogue.get_with_artifacts(session, other)
    not_known = [
        f"{model.prefix} was imported, so nobody recorded its inputs."
        for model in (mine, theirs)
        if model.build_id is None
    ]
    config: tuple[Difference, ...] = ()
    texts = _config(session, theirs), _config(session, mine)
    if texts[0] is None or texts[1] is None:
        not_known.append("One of the models has no search-config.toml to compare.")
    else:
        config = differences(texts[0], texts[1])
    changed = (
        between_builds(session, mine.build_id, theirs.build_id) if mine.build_id and theirs.build_id else []
    )
    files: list[FileDifference] = []
    total = 0
    for one in changed:
        if one.this is None or one.other is None or one.kind not in _ARCHIVES:
            continue
        if not _has_files(session, one.this, one.other):
            not_known.append(f"The files in {one.name} were not recorded for both models.")
        else:
            found, count = _files(session, one.name, one.this, one.other)
            files += found[: MOST_FILES - len(files)]
            total += count
    found_facts = FactsCompared((), (), 0, ())
    if mine.build_id and theirs.build_id:
        sides = Side(prefix, mine.build_id), Side(other, theirs.build_id)
        found_facts = facts.compare(session, *sides)
        not_known += found_facts.not_known
    return Differences(
        mine.sha, theirs.sha, config, tuple(changed), tuple(files), total, found_facts, tuple(not_known)
    )


def _config(session: Session, model: Model) -> str | None:
    if model.build_id is not None:
        return session.scalar(select(Build.search_config).where(Build.id == model.build_id))
    return session.scalar(select(Model.search_config).where(Model.id == model.id))


def between_builds(session: Session, this: UUID, other: UUID) -> list[InputDifference]:
    """The inputs that differ between two builds, or that only one of them has used."""
    found: dict[tuple[str, str], dict[UUID, str | None]] = {}
    rows = session.scalars(select(BuildInput).where(BuildInput.build_id.in_([this, other])))
    for row in rows:
        found.setdefault((row.kind, row.name), {})[row.build_id] = row.sha256 or row.origin
    pairs = (
        InputDifference(kind, name, of.get(this), of.get(other)) for (kind, name), of in sorted(found.items())
    )
    return [pair for pair in pairs if pair.this != pair.other]


def _has_files(session: Session, *archives: str) -> bool:
    """Whether the files of all these archives are recorded."""
    known = select(func.count()).where(
        Input.sha256.in_(archives), Input.parts_recorded_at.is_not(None), Input.parts_problem.is_(None)
    )
    return session.scalar(known) == len(archives)


def _files(session: Session, archive: str, this: str, other: str) -> tuple[list[FileDifference], int]:
    """The first files that differ between two archives, and how many differ."""
    new = select(InputPart).where(InputPart.container == this).subquery()
    old = select(InputPart).where(InputPart.container == other).subquery()
    path = func.coalesce(new.c.path, old.c.path)
    rows = session.execute(
        select(path, new.c.sha256, old.c.sha256, new.c.lines, old.c.lines, func.count().over())
        .select_from(new.join(old, new.c.path == old.c.path, full=True))
        .where(new.c.sha256.is_distinct_from(old.c.sha256))
        .order_by(path)
        .limit(MOST_FILES)
    ).all()
    found = [
        FileDifference(
            archive,
            name,
            FileChange.ADDED if was is None else FileChange.REMOVED if now is None else FileChange.CHANGED,
            lines,
            other_lines,
        )
        for name, now, was, lines, other_lines, _ in rows
    ]
    return found, rows[0][5] if rows else 0
