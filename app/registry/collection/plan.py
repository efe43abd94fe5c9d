"""The plan of garbage collection: which models may go and why, and which stay and why."""

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Self
from uuid import UUID

from sqlalchemy.orm import Session

from app.registry.collection import facts
from app.registry.collection.facts import Plain, Row, Surroundings
from app.registry.collection.retention import Context, Facts, Judgement, Policy, judge
from app.registry.collection.sentences import Explained, explain
from app.registry.pages import Cursor, Page
from app.settings import Settings
from app.words import CollectReason, KeepReason, ModelState, PlanVerdict


@dataclass(frozen=True)
class Planned:
    """A model, and what is to become of it."""

    facts: Facts
    judgement: Judgement
    context: Context
    model_id: UUID
    state: ModelState
    objects: int
    size_bytes: int

    @property
    def prefix(self) -> str:
        return self.facts.prefix

    @property
    def is_doomed(self) -> bool:
        return self.judgement.collect is not None

    @property
    def explained(self) -> tuple[Explained, ...]:
        """The reasons as sentences."""
        return explain(self.facts, self.judgement, self.context)


@dataclass(frozen=True)
class Total:
    """So many models, with so many objects in the bucket, of so many bytes."""

    prefixes: int
    objects: int
    size_bytes: int

    @classmethod
    def of(cls, rows: Sequence[Plain]) -> Self:
        return cls(len(rows), sum([row[10] for row in rows]), sum([row[11] for row in rows]))


@dataclass(frozen=True)
class Plan:
    """Every model whose files are there, newest first, and what is to become of it at one moment.

    Models that are marked already are in it too, as they may still be restored, or have become needed.
    """

    context: Context
    surroundings: Surroundings
    rows: Sequence[Plain]
    judgements: Sequence[Judgement]

    @cached_property
    def _rows_by_verdict(self) -> dict[PlanVerdict, list[Plain]]:
        found: dict[PlanVerdict, list[Plain]] = {verdict: [] for verdict in PlanVerdict}
        doomed, kept = found[PlanVerdict.DOOMED], found[PlanVerdict.KEPT]
        for row, judgement in zip(self.rows, self.judgements, strict=True):
            (kept if judgement.collect is None else doomed).append(row)
        return found

    @cached_property
    def _judged(self) -> dict[str, Judgement]:
        return {row[2]: judged for row, judged in zip(self.rows, self.judgements, strict=True)}

    def _planned(self, rows: Iterable[Plain]) -> Iterator[Planned]:
        return (
            Planned(
                self.surroundings.facts(row),
                self._judged[row.prefix],
                self.context,
                UUID(row.id),
                ModelState(row.state),
                row.objects,
                row.size_bytes,
            )
            for row in map(Row._make, rows)
        )

    def models(self, verdict: PlanVerdict | None = None) -> Iterator[Planned]:
        """All models, or those that are doomed or kept, newest first."""
        return self._planned(self.rows if verdict is None else self._rows_by_verdict[verdict])

    @cached_property
    def digest(self) -> str:
        """The same as long as the same models are doomed for the same reasons. A mark does not change it."""
        doomed = self._rows_by_verdict[PlanVerdict.DOOMED]
        lines = sorted(f"{prefix} {self._judged[prefix].collect}\n" for _, _, prefix, *_ in doomed)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @cached_property
    def totals(self) -> dict[PlanVerdict, Total]:
        return {verdict: Total.of(rows) for verdict, rows in self._rows_by_verdict.items()}

    @cached_property
    def counts(self) -> dict[KeepReason | CollectReason, int]:
        """How many models each reason applies to. A model can have several reasons to stay."""
        counts: Counter[KeepReason | CollectReason] = Counter()
        for judgement, models in Counter(self.judgements).items():
            for reason in judgement.reasons:
                counts[reason] += models
        return {word: counts[word] for word in (*CollectReason, *KeepReason) if counts[word]}

    def page(
        self,
        verdict: PlanVerdict | None = None,
        prefix: str | None = None,
        *,
        limit: int,
        cursor: Cursor | None = None,
    ) -> Page[Planned]:
        """Some of the models, newest first. Raises Invalid for the cursor of another list."""
        rows = self.rows if verdict is None else self._rows_by_verdict[verdict]
        if prefix is not None:
            rows = [row for row in rows if row[2] == prefix]
        first = 0
        if cursor is not None:
            cursor.check(UUID)
            last_shown = (cursor.at, str(cursor.id))
            # The rows descend. Those that come after the last one that was shown are at their end.
            first = bisect_left(rows, 1, key=lambda row: row[:2] < last_shown)
        items = rows[first : first + limit]
        more = len(rows) > first + limit
        end = Cursor(items[-1][0], UUID(items[-1][1])) if more else None
        return Page(list(self._planned(items)), end)


def compute(
    session: Session,
    settings: Settings,
    now: datetime | None = None,
    prefixes: Collection[str] | None = None,
) -> Plan:
    """The plan for all models, or for some. `now` is the database's time unless it is given."""
    context = facts.context(session, Policy.of(settings), now)
    surroundings = facts.surroundings(session, context, prefixes)
    rows = facts.rows(session, prefixes)
    if facts.has_other_branches(session, context):
        # The names are those of before, and the commits may be those of now. Until all is read anew, the
        # branches are not known.
        context = replace(context, branches=None)
    # Of 100,000 models, most have everything in common with others that their judgement depends on.
    judged: dict[tuple[object, ...], Judgement] = {}
    judgements = []
    for row in rows:
        key = surroundings.decisive(row, context)
        judgement = judged.get(key)
        if judgement is None:
            judgement = judged[key] = judge(surroundings.facts(Row._make(row)), context)
        judgements.append(judgement)
    return Plan(context, surroundings, rows, judgements)


def recheck(
    session: Session, settings: Settings, prefixes: Collection[str], now: datetime | None = None
) -> dict[str, Planned]:
    """What is to become of these models, by prefix, from facts that are read anew.

    A model that is being swept, or is collected, is left out. For a decision that is to hold, lock the rows
    of the models first, with `catalogue.get_locked`.
    """
    return {each.prefix: each for each in compute(session, settings, now, prefixes).models()}
