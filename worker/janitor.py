"""Finds builds without a worker, instances without an active build, and lost files of what the stages run."""

import logging
from datetime import UTC, datetime, timedelta
from uuid import UUID

from app.db.session import Database
from app.db.tables import Model
from app.queue import enqueue_build
from app.registry import launches, mirror
from app.registry.builds.lease import state_of, unattended
from app.registry.runs import lifecycle, reconciliation
from app.registry.stages import history
from app.words import Stage
from worker import ec2
from worker.clouds import Cloud, Clouds
from worker.mirror import matches

_log = logging.getLogger(__name__)


def requeue_unattended(database: Database) -> int:
    """Enqueue every active build and run that has neither a worker nor a job. Returns how many there were."""
    with database.transaction() as session:
        builds = unattended(session)
        for build_id in builds:
            enqueue_build(session, build_id)
        return len(builds) + lifecycle.requeue_unattended(session)


def terminate_orphans(
    database: Database, clouds: Clouds, grace: timedelta, now: datetime | None = None
) -> list[str]:
    """Terminate the instances whose build has ended. Returns their ids.

    It looks in every region in use. An instance of a build that this registry does not know belongs to
    another registry and is left alone. `grace` is the age at which an instance is first looked at: a younger
    one may belong to a build that has only just begun or ended.
    Raises CloudError.
    """
    now = now or datetime.now(UTC)
    with database.transaction() as session:
        regions = {clouds.home.region, *launches.regions(session)}
    return [
        instance_id
        for region in sorted(regions)
        for instance_id in _terminate_orphans(database, clouds.region(region), grace, now)
    ]


def _terminate_orphans(database: Database, cloud: Cloud, grace: timedelta, now: datetime) -> list[str]:
    ended = []
    for found in ec2.managed_instances(cloud):
        instance_id = found["InstanceId"]
        tags = {tag.get("Key"): tag.get("Value", "") for tag in found.get("Tags", [])}
        try:
            build_id = UUID(tags.get("build-id", ""))
        except ValueError:
            _log.warning("instance_id=%s carries our tag, but not that of a build", instance_id)
            continue
        if now - found["LaunchTime"] < grace:
            continue
        with database.transaction() as session:
            state = state_of(session, build_id)
        if state is None:
            _log.warning("instance_id=%s belongs to the unknown build %s", instance_id, build_id)
        elif not state.active:
            _log.warning("instance_id=%s outlived its build %s: terminated", instance_id, build_id)
            ec2.terminate(cloud, [instance_id])
            ended.append(instance_id)
    return ended


def watch_stages(database: Database, clouds: Clouds) -> list[str]:
    """Look whether the files of the models that the stages run are in the bucket. Returns the missing keys.

    A reconciliation looks at all models, but only once a night. Raises CloudError.
    """
    with database.transaction() as session:
        running = [model.id for stage in Stage if (model := history.running(session, stage)) is not None]
        models = mirror.recorded(session, Model.id.in_(running))
    missing, present = [], []
    for recorded in models:
        for name, artifact in recorded.artifacts.items():
            if matches(clouds.bucket.head(artifact.key), mirror.of_model(recorded, name)):
                present.append(artifact.key)
            else:
                missing.append(artifact.key)
                if not artifact.missing:
                    _log.error("key=%s is not as recorded, and a stage runs its model", artifact.key)
    with database.transaction() as session:
        reconciliation.remember(session, missing=missing, present=present)
    return missing
