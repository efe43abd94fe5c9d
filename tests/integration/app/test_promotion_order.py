"""Promotions, rollbacks and imports in any order, compared with a model of the rules in a few lines."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import text

from app.db.session import Database
from app.registry.errors import GateRefused, NotFound, NothingToRollBackTo, StageChanged
from app.registry.stages import history, latest, promotions, rollbacks
from app.registry.stages.latest import Asked
from app.registry.stages.promotions import PromotionRequest
from app.registry.stages.rollbacks import RollbackRequest
from app.settings import Settings
from app.storage.bucket import Bucket
from app.words import Stage, Verdict
from tests.integration.app.registry import Registry
from tests.machines import run_machine

STAGES = list(Stage)
_PREFIXES = st.integers(0, 3)


@dataclass(order=True, frozen=True)
class Entry:
    """A promotion. Its order is the order of promotions."""

    at: datetime
    id: int
    prefix: str
    rollback: bool


@dataclass
class Expected:
    """The rules, in a few lines and in memory."""

    history: dict[Stage, list[Entry]] = field(default_factory=lambda: {stage: [] for stage in Stage})

    def add(self, stage: Stage, entry: Entry) -> None:
        self.history[stage] = sorted([*self.history[stage], entry])

    def runs(self, stage: Stage) -> str | None:
        return self.history[stage][-1].prefix if self.history[stage] else None

    def was_in(self, prefix: str, stage: Stage) -> bool:
        return any(entry.prefix == prefix for entry in self.history[stage])

    def refuses(self, prefix: str, stage: Stage, verdict: Verdict) -> bool:
        skips = stage.before is not None and not self.was_in(prefix, stage.before)
        return skips or (stage.before is not None and verdict is not Verdict.PASSED)

    def goes_back_to(self, stage: Stage) -> str | None:
        entries = self.history[stage]
        current = entries[-1].prefix
        came = max(entry for entry in entries if entry.prefix == current and not entry.rollback)
        earlier = [entry for entry in entries if entry < came and entry.prefix != current]
        return earlier[-1].prefix if earlier else None


def test_any_order_of_promotions_means_what_it_must(registry: Registry, settings: Settings) -> None:
    database: Database = registry.database
    bucket = registry.bucket = Bucket.of(settings)
    verdicts = [Verdict.PASSED, Verdict.PASSED, Verdict.UNKNOWN, Verdict.FAILED]
    made = [(registry.model(f"1.{n}.0", verdict=verdict), verdict) for n, verdict in enumerate(verdicts)]

    class Promotions(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            # The record cannot be emptied otherwise; this is what its trigger is for.
            registry.execute("ALTER TABLE promotions DISABLE TRIGGER promotions_append_only")
            registry.execute("DELETE FROM promotions")
            registry.execute("ALTER TABLE promotions ENABLE TRIGGER promotions_append_only")
            registry.execute("DELETE FROM outbox")
            self.expected = Expected()
            self.imported: set[str] = set()

        @rule(number=_PREFIXES, stage=st.sampled_from(STAGES), override=st.booleans())
        def promote(self, number: int, stage: Stage, override: bool) -> None:
            prefix, verdict = made[number]
            runs_it = self.expected.runs(stage) == prefix
            refuses = self.expected.refuses(prefix, stage, verdict)
            wanted = PromotionRequest(stage, "a reason", override)
            if refuses and not override and not runs_it:
                with pytest.raises(GateRefused):
                    promotions.promote(database, bucket, "x", prefix, wanted)
                return
            promotion, new = promotions.promote(database, bucket, "x", prefix, wanted)
            assert new is not runs_it
            if new:
                assert promotion.override is refuses
                self.expected.add(stage, Entry(promotion.promoted_at, promotion.id, prefix, rollback=False))

        @rule(stage=st.sampled_from(STAGES), to=st.none() | _PREFIXES, repeated=st.booleans())
        def roll_back(self, stage: Stage, to: int | None, repeated: bool) -> None:
            current = self.expected.runs(stage)
            if current is None:
                return
            target = self.expected.goes_back_to(stage) if to is None else made[to][0]
            if target == current:
                return
            wanted = RollbackRequest(stage, current, "a reason", None if to is None else target)
            if target is None or not self.expected.was_in(target, stage):
                with pytest.raises(NothingToRollBackTo):
                    rollbacks.roll_back(database, bucket, "x", wanted)
                return
            promotion, prefix = rollbacks.roll_back(database, bucket, "x", wanted)
            assert prefix == target
            self.expected.add(stage, Entry(promotion.promoted_at, promotion.id, prefix, rollback=True))
            if repeated:
                with pytest.raises(StageChanged):
                    rollbacks.roll_back(database, bucket, "x", wanted)

        @rule(number=_PREFIXES, stage=st.sampled_from(STAGES), before=st.integers(0, 20))
        def import_an_old_one(self, number: int, stage: Stage, before: int) -> None:
            """A marker of another tool, from just before a promotion that is recorded already."""
            entries = self.expected.history[stage]
            if not entries:
                return
            prefix = made[number][0]
            at = entries[before % len(entries)].at - timedelta(microseconds=1)
            sql = (
                "INSERT INTO promotions (model_id, version, stage, promoted_by, promoted_at)"
                " SELECT id, version, :stage, 'import', :at FROM models WHERE prefix = :prefix RETURNING id"
            )
            with database.transaction() as session:
                number_of = session.execute(
                    text(sql), {"stage": stage, "at": at, "prefix": prefix}
                ).scalar_one()
            self.expected.add(stage, Entry(at, number_of, prefix, rollback=False))
            self.imported.add(f"{prefix}/{stage}")

        @invariant()
        def the_latest_is_the_last(self) -> None:
            for stage, entries in self.expected.history.items():
                with database.transaction() as session:
                    if entries:
                        found = latest.find(session, Asked(stage))
                        assert found.prefix == entries[-1].prefix
                        assert latest.find(session, Asked(stage, found.version)).prefix == found.prefix
                    else:
                        with pytest.raises(NotFound):
                            latest.find(session, Asked(stage))

        @invariant()
        def history_is_the_record(self) -> None:
            for stage, entries in self.expected.history.items():
                with database.transaction() as session:
                    page = history.history(session, stage, limit=100)
                    found = [(period.promotion.promoted_at, period.prefix) for period in page.items]
                assert found == [(entry.at, entry.prefix) for entry in reversed(entries)]

        @invariant()
        def each_has_one_marker_a_stage(self) -> None:
            expected = {
                f"{entry.prefix}/{stage}" for stage, of in self.expected.history.items() for entry in of
            }
            asked = set(registry.values("SELECT key FROM outbox"))
            # What was imported has its marker already.
            assert expected - self.imported <= asked <= expected

    run_machine(Promotions, examples=12, steps=15)
