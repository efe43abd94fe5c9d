"""Finds what nobody looks after: builds without a worker, instances without a build, staged leftovers."""

import logging
from datetime import UTC, datetime, timedelta
from uuid import UUID

from app.db.session import Database
from app.queue import enqueue_build
from app.registry.builds.lease import state_of, unattended
from app.storage import keys
from worker.clouds import Cloud
from worker.steps.instance import managed_instances, terminate

_log = logging.getLogger(__name__)


def requeue_unattended(database: Database) -> int:
    """Enqueue every active build that no worker holds and no job will bring to one; returns how many."""
    with database.transaction() as session:
        builds = unattended(session)
        for build_id in builds:
            enqueue_build(session, build_id)
    return len(builds)


def terminate_orphans(
    database: Database, cloud: Cloud, grace: timedelta, now: datetime | None = None
) -> list[str]:
    """End the instances whose build, one of this registry's, has ended; returns their ids.

    An instance of a build that we do not know is another registry's, and left alone. The grace period is
    for a build that was just made, or has just ended and is about to say so. Raises CloudError.
    """
    now = now or datetime.now(UTC)
    ended = []
    for found in managed_instances(cloud):
        instance_id = found["InstanceId"]
        tags = {tag.get("Key"): tag.get("Value", "") for tag in found.get("Tags", [])}
        try:
            build_id = UUID(tags.get("build-id", ""))
        except ValueError:
            _log.warning("instance_id=%s carries our tag but no build's", instance_id)
            continue
        if now - found["LaunchTime"] < grace:
            continue
        with database.transaction() as session:
            state = state_of(session, build_id)
        if state is None:
            _log.warning("instance_id=%s is of the unknown build %s", instance_id, build_id)
        elif not state.active:
            _log.warning("instance_id=%s outlived its build %s: terminated", instance_id, build_id)
            terminate(cloud, [instance_id])
            ended.append(instance_id)
    return ended


def sweep_staging(database: Database, cloud: Cloud) -> int:
    """Delete what ended builds had staged; returns how many objects. Raises CloudError."""
    deleted = 0
    for key, _ in list(cloud.bucket.list(keys.STAGING)):
        try:
            build_id = UUID(key.removeprefix(keys.STAGING).partition("/")[0])
        except ValueError:
            continue
        with database.transaction() as session:
            state = state_of(session, build_id)
        if state is not None and not state.active:
            cloud.bucket.delete(key)
            deleted += 1
    return deleted
