"""The plan of garbage collection: which models may go and why, and which stay and why."""

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from itertools import compress
from typing import Self
from uuid import UUID

from sqlalchemy.orm import Session

from app.registry.collection import facts
from app.registry.collection.facts import Plain, Row, Surroundings
from app.registry.collection.retention import Context, Facts, Judgement, Policy, Rule, judge
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
    def releasing_rule(self) -> Rule | None:
        """The rule without which the model would not be doomed."""
        if self.judgement.collect is not CollectReason.RETIRED_BY_RULE:
            return None
        return self.context.rule_for(self.facts.version, self.facts.branch)

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
    def _by_verdict(self) -> dict[PlanVerdict, tuple[list[Plain], list[Judgement]]]:
        """The models that are doomed and those that are kept, newest first, with their judgements."""
        doomed = [judgement.collect is not None for judgement in self.judgements]
        kept = [not is_doomed for is_doomed in doomed]
        return {
            verdict: (list(compress(self.rows, chosen)), list(compress(self.judgements, chosen)))
            for verdict, chosen in ((PlanVerdict.DOOMED, doomed), (PlanVerdict.KEPT, kept))
        }

    def _chosen(self, verdict: PlanVerdict | None) -> tuple[Sequence[Plain], Sequence[Judgement]]:
        return (self.rows, self.judgements) if verdict is None else self._by_verdict[verdict]

    def _planned(self, rows: Iterable[Plain], judgements: Iterable[Judgement]) -> Iterator[Planned]:
        return (
            Planned(
                self.surroundings.facts(row),
                judgement,
                self.context,
                UUID(row.id),
                ModelState(row.state),
                row.objects,
                row.size_bytes,
            )
            for row, judgement in zip(map(Row._make, rows), judgements, strict=True)
        )

    def models(self, verdict: PlanVerdict | None = None) -> Iterator[Planned]:
        """All models, or those that are doomed or kept, newest first."""
        return self._planned(*self._chosen(verdict))

    @cached_property
    def digest(self) -> str:
        """The same as long as the same models are doomed for the same reasons. A mark does not change it.

        Their order follows from columns of theirs that never change.
        """
        digest = hashlib.sha256()
        rows, judgements = self._by_verdict[PlanVerdict.DOOMED]
        for reason in CollectReason:
            prefixes = [
                row[2] for row, judgement in zip(rows, judgements, strict=True) if judgement.collect is reason
            ]
            digest.update("\n".join((f"{reason}:", *prefixes, "")).encode())
        return digest.hexdigest()

    @cached_property
    def totals(self) -> dict[PlanVerdict, Total]:
        return {verdict: Total.of(rows) for verdict, (rows, _) in self._by_verdict.items()}

    @cached_property
    def counts(self) -> dict[KeepReason | CollectReason, int]:
        """How many models each reason applies to. A model can have several reasons to stay."""
        # Models with everything in common have the same judgement, and so do few that have not.
        of_judgement = {id(judgement): judgement for judgement in self.judgements}
        counts: Counter[KeepReason | CollectReason] = Counter()
        for number, models in Counter(map(id, self.judgements)).items():
            for reason in of_judgement[number].reasons:
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
        rows, judgements = self._chosen(verdict)
        if prefix is not None:
            chosen = [row[2] == prefix for row in rows]
            rows, judgements = list(compress(rows, chosen)), list(compress(judgements, chosen))
        first = 0
        if cursor is not None:
            cursor.check(UUID)
            last_shown = (cursor.at, str(cursor.id))
            # The rows descend. Those that come after the last one that was shown are at their end.
            first = bisect_left(rows, 1, key=lambda row: row[:2] < last_shown)
        here = slice(first, first + limit)
        last = rows[here][-1] if len(rows) > first + limit else None
        end = None if last is None else Cursor(last[0], UUID(last[1]), self.digest)
        return Page(list(self._planned(rows[here], judgements[here])), end)


def compute(
    session: Session,
    settings: Settings,
    now: datetime | None = None,
    prefixes: Collection[str] | None = None,
    release_rules: tuple[Rule, ...] | None = None,
) -> Plan:
    """The plan for all models, or for some.

    `now` is the database's time unless it is given, and `release_rules` are those that hold now.
    """
    context = facts.context(session, Policy.of(settings), now, release_rules)
    surroundings = facts.surroundings(session, context, prefixes)
    rows = facts.rows(session, prefixes)
    if facts.has_other_branches(session, context):
        # The names are those of before, and the commits may be those of now. Until all is read anew, the
        # branches are not known.
        context = replace(context, branches=None)
    # Of 100,000 models, most have everything in common with others that their judgement depends on.
    judged: dict[Hashable, Judgement] = {}
    judgements = []
    for row, decisive in zip(rows, surroundings.decisive(rows, context), strict=True):
        judgement = judged.get(decisive)
        if judgement is None:
            judgement = judged[decisive] = judge(surroundings.facts(Row._make(row)), context)
        judgements.append(judgement)
    return Plan(context, surroundings, rows, judgements)


def recheck(
    session: Session,
    settings: Settings,
    prefixes: Collection[str],
    now: datetime | None = None,
    release_rules: tuple[Rule, ...] | None = None,
) -> dict[str, Planned]:
    """What is to become of these models, by prefix, from facts that are read anew.

    A model that is being swept, or is collected, is left out. For a decision that is to hold, lock the rules
    first, with `rules.active`, and then the rows of the models, with `catalogue.get_locked`.
    """
    found = compute(session, settings, now, prefixes, release_rules)
    return {each.prefix: each for each in found.models()}
