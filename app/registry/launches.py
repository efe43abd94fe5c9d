"""Launches: each request for an instance, which is recorded before EC2 is asked, and its outcome."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Launch
from app.registry.builds import events
from app.registry.builds.clock import now
from app.registry.builds.lease import Lease, fence
from app.words import EventType, LaunchState, Market

# A build that has lost this many instances fails. Requests that EC2 refused do not count.
MAX_LAUNCHES = 3


class TooManyLaunches(Exception):
    """The build has already had as many instances as it may have."""


@dataclass(frozen=True)
class Place:
    """Where an instance may run."""

    region: str
    zone: str
    subnet_id: str


@dataclass(frozen=True)
class Request:
    """A launch that is recorded and that EC2 will be asked for."""

    id: int
    client_token: str
    requested_at: datetime


def token_of(build_id: UUID, attempt: int, place: Place, instance_type: str, market: Market) -> str:
    """EC2's idempotency token, which is the same for every try of one launch. It has 64 characters."""
    parts = (build_id, attempt, place.region, place.subnet_id, instance_type, market)
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def request(
    session: Session, lease: Lease, place: Place, instance_type: str, market: Market = Market.ON_DEMAND
) -> Request:
    """Record that EC2 is about to be asked for an instance.

    If the answer to an earlier request for the same place was never stored, that request is used again.
    Raises LeaseLost and TooManyLaunches.
    """
    fence(session, lease)
    earlier = session.scalars(
        select(Launch).where(Launch.build_id == lease.build_id).order_by(Launch.attempt)
    ).all()
    for launch in earlier:
        same = (launch.subnet_id, launch.instance_type, launch.market) == (
            place.subnet_id,
            instance_type,
            market,
        )
        if launch.state == LaunchState.REQUESTED and same:
            return Request(launch.id, launch.client_token, launch.requested_at)
    if sum(launch.state != LaunchState.REFUSED for launch in earlier) >= MAX_LAUNCHES:
        message = f"build {lease.build_id} has had {MAX_LAUNCHES} instances"
        raise TooManyLaunches(message)
    attempt = len(earlier) + 1
    launch = Launch(
        build_id=lease.build_id,
        attempt=attempt,
        region=place.region,
        zone=place.zone,
        subnet_id=place.subnet_id,
        instance_type=instance_type,
        market=market,
        client_token=token_of(lease.build_id, attempt, place, instance_type, market),
        state=LaunchState.REQUESTED,
    )
    session.add(launch)
    session.flush()
    session.refresh(launch)
    return Request(launch.id, launch.client_token, launch.requested_at)


def launched(session: Session, lease: Lease, launch_id: int, instance_id: str) -> None:
    """Record the instance that EC2 launched for the request. Raises LeaseLost."""
    fence(session, lease)
    launch, at = session.get_one(Launch, launch_id), now(session)
    launch.state = LaunchState.LAUNCHED
    launch.instance_id = instance_id
    launch.launched_at = at


def refused(session: Session, lease: Lease, launch_id: int, code: str, message: str) -> None:
    """Record that EC2 refused the request. Raises LeaseLost."""
    fence(session, lease)
    launch, at = session.get_one(Launch, launch_id), now(session)
    launch.state = LaunchState.REFUSED
    launch.refusal_code = code
    launch.refusal_message = message
    launch.ended_at = at
    session.flush()
    events.add(
        session,
        lease.build_id,
        EventType.LAUNCH_REFUSED,
        {"attempt": launch.attempt, "zone": launch.zone, "code": code, "message": message},
    )


def ended(session: Session, lease: Lease) -> None:
    """Record that no instance of the build is left. Raises LeaseLost."""
    fence(session, lease)
    at = now(session)
    for launch in session.scalars(
        select(Launch).where(Launch.build_id == lease.build_id, Launch.ended_at.is_(None))
    ):
        launch.state = LaunchState.TERMINATED
        launch.ended_at = at


def regions(session: Session) -> list[str]:
    """Every region in which an instance may be alive."""
    return list(
        session.scalars(select(Launch.region).where(Launch.ended_at.is_(None)).group_by(Launch.region))
    )
