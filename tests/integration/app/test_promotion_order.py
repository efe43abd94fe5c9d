"""Promotions in any order, compared with a model of the rules in a few lines."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from app.db.session import Database
from app.registry import latest, promotions
from app.registry.errors import GateRefused, NotFound
from app.registry.latest import Asked
from app.registry.promotions import PromotionRequest
from app.words import Stage, Verdict
from tests.integration.app.registry import Registry

STAGES = list(Stage)
_MODELS = 4


@dataclass
class Expected:
    """The rules, in a few lines and in memory."""

    history: dict[Stage, list[str]] = field(default_factory=lambda: {stage: [] for stage in Stage})

    def refuses(self, prefix: str, stage: Stage, verdict: Verdict) -> bool:
        position = STAGES.index(stage)
        skips = position > 0 and prefix not in self.history[STAGES[position - 1]]
        return skips or (position > 0 and verdict is Verdict.FAILED)


def test_any_order_of_promotions_means_what_it_must(registry: Registry) -> None:
    database: Database = registry.database
    verdicts = [Verdict.PASSED, Verdict.PASSED, Verdict.PASSED, Verdict.FAILED]
    made = {registry.model(f"1.{n}.0", verdict=verdict): verdict for n, verdict in enumerate(verdicts)}

    class Promotions(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            # The record cannot be emptied otherwise; this is what its trigger is for.
            registry.execute("ALTER TABLE promotions DISABLE TRIGGER promotions_append_only")
            registry.execute("DELETE FROM promotions")
            registry.execute("ALTER TABLE promotions ENABLE TRIGGER promotions_append_only")
            registry.execute("DELETE FROM outbox")
            self.expected = Expected()

        @rule(prefix=st.sampled_from(sorted(made)), stage=st.sampled_from(STAGES), override=st.booleans())
        def promote(self, prefix: str, stage: Stage, override: bool) -> None:
            history = self.expected.history[stage]
            runs_it = history[-1:] == [prefix]
            refuses = self.expected.refuses(prefix, stage, made[prefix])
            wanted = PromotionRequest(stage, "a reason", override)
            if refuses and not override and not runs_it:
                with pytest.raises(GateRefused), database.transaction() as session:
                    promotions.record(session, "x", prefix, wanted)
                return
            with database.transaction() as session:
                promotion, new = promotions.record(session, "x", prefix, wanted)
                assert new is not runs_it
                if new:
                    assert promotion.override is refuses
                    history.append(prefix)

        @invariant()
        def the_latest_is_the_last(self) -> None:
            for stage, history in self.expected.history.items():
                with database.transaction() as session:
                    if history:
                        found = latest.find(session, Asked(stage))
                        assert found.prefix == history[-1]
                        assert latest.find(session, Asked(stage, found.version)).prefix == history[-1]
                    else:
                        with pytest.raises(NotFound):
                            latest.find(session, Asked(stage))

        @invariant()
        def each_has_one_marker_a_stage(self) -> None:
            expected = sorted(f"{p}/{stage}" for stage, of in self.expected.history.items() for p in set(of))
            assert sorted(registry.values("SELECT key FROM outbox")) == expected

    run_state_machine_as_test(Promotions, settings=settings(max_examples=12, stateful_step_count=15))
