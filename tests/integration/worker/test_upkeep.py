"""The janitor."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text

from app.aws import CloudError
from app.db.session import Database
from app.db.tables import Build
from app.registry.builds.lease import take
from app.settings import Settings
from app.storage import keys
from app.words import StepName
from local.simcloud.server import SimCloud
from tests.integration.objects import overwrite
from tests.integration.worker.conftest import Flow
from worker import janitor, unpublished
from worker.clouds import Clouds
from worker.runner import Runner

Post = Callable[..., UUID]


def test_builds_without_a_worker_get_exactly_one_job(
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
    assert janitor.terminate_orphans(flow.database, flow.clouds, timedelta(minutes=10)) == []
    assert janitor.terminate_orphans(flow.database, flow.clouds, timedelta(0)) == [instance.id]
    assert cloud.instances() == []


def test_an_active_builds_instance_and_a_strangers_are_left_alone(flow: Flow, cloud: SimCloud) -> None:
    flow.do_until(StepName.AWAIT_ADDRESS)
    ec2, [ours] = flow.clouds.home.ec2, cloud.instances()
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
    assert janitor.terminate_orphans(flow.database, flow.clouds, timedelta(0)) == []
    assert len(cloud.instances()) == 5


def test_unpublished_files_of_ended_builds_are_removed_and_nothing_else(
    database: Database, filled_bucket: Clouds, post: Post, new_runner: Callable[[], Runner], cloud: SimCloud
) -> None:
    bucket = filled_bucket.bucket
    running, ended, unknown = post("0.0.2"), post("0.0.3", "f" * 40), uuid4()
    new_runner().carry(ended)
    for build_id in (running, ended, unknown):
        overwrite(bucket, keys.unpublished_key(build_id, "a" * 64))
        overwrite(bucket, keys.former_unpublished_key(build_id, "model.zip"))
    overwrite(bucket, "unpublished/notes.txt")
    assert unpublished.count(database, bucket, timedelta(0)).objects == 2
    assert unpublished.sweep(database, bucket, timedelta(0), lambda: None).objects == 2
    left = {key for folder in ("unpublished/", "staging/") for key, _ in bucket.list(folder)}
    assert left == {
        keys.unpublished_key(running, "a" * 64),
        keys.unpublished_key(unknown, "a" * 64),
        keys.former_unpublished_key(running, "model.zip"),
        keys.former_unpublished_key(unknown, "model.zip"),
        "unpublished/notes.txt",
    }


def test_upkeep_reports_what_aws_refuses(flow: Flow, cloud: SimCloud) -> None:
    cloud.faults.add("ec2", "DescribeInstances", code="UnauthorizedOperation", status=403, times=None)
    with pytest.raises(CloudError, match="UnauthorizedOperation"):
        janitor.terminate_orphans(flow.database, flow.clouds, timedelta(0))
