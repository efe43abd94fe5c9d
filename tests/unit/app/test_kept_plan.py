"""The plan of garbage collection that is kept for its other pages."""

import time
from datetime import UTC, datetime, timedelta

from app.registry.collection.facts import Surroundings
from app.registry.collection.kept_plan import KeptPlan
from app.registry.collection.plan import Plan
from app.registry.collection.retention import Context, Policy
from app.settings import Settings

POLICY = Policy.of(Settings.model_validate({"database_url": "postgresql://127.0.0.1/x"}))


def plan_of(now: datetime) -> Plan:
    return Plan(Context(POLICY, None, now), Surroundings({}, {}, {}, None), [], [])


def test_a_kept_plan_is_found_by_its_digest_until_its_time_is_over() -> None:
    first = plan_of(datetime.now(UTC))
    kept = KeptPlan(keep_s=60)
    assert kept.find(first.digest) is None
    assert kept.keep(first) is kept.find(first.digest) is first
    assert kept.find(None) is None
    assert kept.find("0" * 64) is None
    # The newest one with this digest.
    second = plan_of(first.context.now + timedelta(seconds=1))
    kept.keep(second)
    assert kept.find(first.digest) is second
    short = KeptPlan(keep_s=0.01)
    short.keep(first)
    while short.find(first.digest) is not None:
        time.sleep(0.01)
