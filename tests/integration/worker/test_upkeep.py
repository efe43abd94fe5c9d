"""The mirror and the janitor."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text

from app.aws import CloudError
from app.db.session import Database
from app.db.tables import Build, Outbox
from app.registry.builds.lease import take
from app.settings import Settings
from app.storage import keys
from app.words import StepName
from local.simcloud.server import SimCloud
from tests.integration.worker.conftest import Flow
from worker import janitor, mirror
from worker.clouds import Cloud
from worker.runner import Runner

Post = Callable[..., UUID]


def put_into_outbox(database: Database, *names: str) -> None:
    with database.transaction() as session:
        session.add_all(Outbox(key=name) for name in names)


def open_changes(database: Database) -> list[tuple[str, int, str | None]]:
    with database.transaction() as session:
        rows = session.scalars(select(Outbox).where(Outbox.done_at.is_(None)).order_by(Outbox.id))
        return [(row.key, row.attempts, row.last_error) for row in rows]


def test_the_mirror_carries_every_change_out(database: Database, clients: Cloud) -> None:
    put_into_outbox(database, "0.0.2-aff1242/development", "0.0.2-aff1242/passed")
    assert mirror.drain(database, clients.bucket) == 2
    assert dict(clients.bucket.list("0.0.2-aff1242/")) == {
        "0.0.2-aff1242/development": 0,
        "0.0.2-aff1242/passed": 0,
    }
    assert open_changes(database) == []
    assert mirror.drain(database, clients.bucket) == 0


def test_a_change_that_s3_refuses_waits_and_the_others_go_on(
    database: Database, clients: Cloud, cloud: SimCloud
) -> None:
    put_into_outbox(database, "a/staging", "b/staging")
    cloud.faults.add("s3", "PutObject", code="AccessDenied", status=403, times=1)
    assert mirror.drain(database, clients.bucket) == 1
    [(key, attempts, error)] = open_changes(database)
    assert (key, attempts) == ("a/staging", 1)
    assert "AccessDenied" in (error or "")
    with database.transaction() as session:
        session.execute(text("UPDATE outbox SET next_attempt_at = clock_timestamp()"))
    assert mirror.drain(database, clients.bucket) == 1
    assert open_changes(database) == []


def test_a_death_between_the_write_and_its_record_repeats_the_write(
    database: Database, clients: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_into_outbox(database, "a/production")

    def dies(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr("app.registry.outbox.done", dies)
        with pytest.raises(SystemExit):
            mirror.drain(database, clients.bucket)
    assert clients.bucket.head("a/production") is not None
    assert len(open_changes(database)) == 1
    assert mirror.drain(database, clients.bucket) == 1


def test_builds_that_nobody_holds_get_a_job_and_only_one(
    database: Database, settings: Settings, post: Post
) -> None:
    held, forgotten = post("0.0.2"), post("0.0.3")
    with database.transaction() as session:
        session.execute(text("DELETE FROM procrastinate_jobs"))
        assert take(session, held, "a worker", settings.lease)
    assert janitor.requeue_unattended(database) == 1
    assert janitor.requeue_unattended(database) == 0
    with database.transaction() as session:
        jobs = session.scalars(text("SELECT args->>'build_id' FROM procrastinate_jobs")).all()
    assert jobs == [str(forgotten)]


def test_an_instance_that_outlived_its_build_is_ended(flow: Flow, cloud: SimCloud) -> None:
    flow.do_until(StepName.AWAIT_ADDRESS)
    with flow.database.transaction() as session:
        build = session.get_one(Build, flow.build_id)
        build.failure_step, build.failure_code, build.failure_message = "train", "killed", "for the test"
        build.finished_at = session.execute(select(func.now())).scalar_one()
        build.state = "failed"
    [instance] = cloud.instances()
    assert janitor.terminate_orphans(flow.database, flow.cloud, timedelta(minutes=10)) == []
    assert janitor.terminate_orphans(flow.database, flow.cloud, timedelta(0)) == [instance.id]
    assert cloud.instances() == []


def test_an_active_builds_instance_and_a_strangers_are_left_alone(flow: Flow, cloud: SimCloud) -> None:
    flow.do_until(StepName.AWAIT_ADDRESS)
    ec2, [ours] = flow.cloud.ec2, cloud.instances()
    for tags in (
        {"managed-by": "tariff-model-registry", "build-id": str(uuid4())},
        {"managed-by": "tariff-model-registry"},
        {"managed-by": "somebody"},
        {},
    ):
        specification = [
            {"ResourceType": "instance", "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}
        ]
        ec2.run_instances(
            ImageId=ours.image_id,
            InstanceType="t3.micro",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=specification if tags else [],  # type: ignore[arg-type]
        )
    assert janitor.terminate_orphans(flow.database, flow.cloud, timedelta(0)) == []
    assert len(cloud.instances()) == 5


def test_what_ended_builds_had_staged_is_removed_and_nothing_else(
    database: Database, filled_bucket: Cloud, post: Post, new_runner: Callable[[], Runner], cloud: SimCloud
) -> None:
    bucket = filled_bucket.bucket
    running, ended, unknown = post("0.0.2"), post("0.0.3", "f" * 40), uuid4()
    new_runner().carry(ended)
    for build_id in (running, ended, unknown):
        bucket.put_marker(keys.staged_key(build_id, "model.zip"))
    bucket.put_marker("staging/notes.txt")
    assert janitor.sweep_staging(database, filled_bucket) == 1
    assert sorted(key for key, _ in bucket.list("staging/")) == sorted(
        [
            keys.staged_key(running, "model.zip"),
            keys.staged_key(unknown, "model.zip"),
            "staging/notes.txt",
        ]
    )


def test_upkeep_reports_what_aws_refuses(flow: Flow, cloud: SimCloud) -> None:
    cloud.faults.add("ec2", "DescribeInstances", code="UnauthorizedOperation", status=403, times=None)
    with pytest.raises(CloudError, match="UnauthorizedOperation"):
        janitor.terminate_orphans(flow.database, flow.cloud, timedelta(0))
