"""Garbage collection among everything else that happens, in any order.

Builds that publish, fail, are repeated and are reproduced; imports, promotions and decisions of people; a git
repository whose branches come and go; and collections that die and are resumed, or during which something
else happens. Everything goes through the API and the worker's own functions, over a real Postgres, the
simulated S3 and a real git repository.
"""

import itertools
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.db.session import Database
from app.settings import Settings
from local.simcloud.server import SimCloud
from tests.integration.app.registry import Registry
from tests.integration.worker import collection_rules as rules
from tests.integration.worker.collection_history import World
from tests.integration.worker.collection_machine import Collecting
from tests.integration.worker.collection_tale import Told
from tests.machines import run_machine
from worker.clouds import Clouds
from worker.runs.carrying import RunCarrier


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "gc_minimum_age": rules.MINIMUM_AGE,
            "gc_keep_newest_passed": 0,
            "gc_grace": rules.GRACE,
            "gc_most_at_once": 1.0,
            "gc_retire_after": rules.RETIRE_AFTER,
            "gc_rollback_targets": rules.ROLLBACK_TARGETS,
            "gc_bot_branches": (rules.BOTS,),
            "retry_window": rules.RETRY_WINDOW,
        }
    )


@pytest.fixture
def world(
    settings: Settings,
    database: Database,
    clients: Clouds,
    api: TestClient,
    carrier: RunCarrier,
    cloud: SimCloud,
    tmp_path: Path,
) -> World:
    registry = Registry(database, clients.bucket)
    folders = (tmp_path / f"{number}.git" for number in itertools.count())
    return World(settings, database, registry, clients.bucket, api, carrier, cloud, folders)


def test_each_rule_keeps_its_models_as_long_as_it_must(world: World) -> None:
    told = type("ToldHere", (Told,), {"world": world})()
    told.tell()


# Hypothesis takes minutes to make a failure small.
@pytest.mark.timeout(900)
def test_a_collection_deletes_what_may_go_and_nothing_else_whatever_happens(world: World) -> None:
    run_machine(type("CollectingHere", (Collecting,), {"world": world}), examples=2, steps=10)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_collections_delete_what_may_go_and_nothing_else_whatever_happens_for_long(world: World) -> None:
    run_machine(type("CollectingHere", (Collecting,), {"world": world}), examples=150, steps=40)
