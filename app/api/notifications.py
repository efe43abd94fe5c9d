"""What the registry tells other systems: what was sent, what could not be sent, and a test."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from app.api.common import examples
from app.api.common.deps import CanAdminister, Db, Limit, NextCursor, PageCursor
from app.api.common.errors import problems
from app.api.common.shown import (
    ShownMessage,
    ShownNotificationKind,
    ShownNotificationState,
    ShownNotificationTarget,
)
from app.api.common.strict import StrictRoute
from app.db.tables import Notification
from app.registry import notifications
from app.words import NotificationKind, NotificationState, NotificationTarget

router = APIRouter(tags=["notifications"], route_class=StrictRoute)


class NotificationOut(BaseModel):
    """One message to one target."""

    id: int
    message: UUID = Field(
        description="The same for every target. A webhook gets it as `msg_` and this, in `webhook-id`."
    )
    target: ShownNotificationTarget
    kind: ShownNotificationKind
    subject: str = Field(
        description="What it is about: a prefix, a stage or a run. Messages about one subject are sent in "
        "their order.",
        examples=[examples.NOTIFICATION["subject"]],
    )
    data: dict[str, Any]
    created_at: datetime
    state: ShownNotificationState
    attempts: int
    next_attempt_at: datetime | None = Field(
        description="When it is sent, or tried again, at the earliest. Null unless it is pending."
    )
    finished_at: datetime | None = Field(description="When it was sent or given up.")
    error: ShownMessage | None = Field(description="Why the last attempt did not succeed.")

    @classmethod
    def of(cls, row: Notification) -> Self:
        return cls(
            id=row.id,
            message=row.message,
            target=row.target,
            kind=row.kind,
            subject=row.subject,
            data=row.data,
            created_at=row.created_at,
            state=row.state,
            attempts=row.attempts,
            next_attempt_at=row.next_attempt_at if row.finished_at is None else None,
            finished_at=row.finished_at,
            error=row.last_error,
        )


class NotificationPage(BaseModel):
    """Notifications, newest first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [examples.NOTIFICATION], "next": None}]}
    )

    items: list[NotificationOut]
    next: NextCursor


class MessageOut(BaseModel):
    """A test message that will be sent."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.NOTIFICATION_TEST]})

    message: UUID = Field(description="Follow it with `GET /notifications?message=`.")


@router.get(
    "/notifications",
    operation_id="notifications:list",
    summary="What other systems were told",
    response_description="A page of notifications",
    responses=problems(),
)
def list_notifications(
    _who: CanAdminister,
    db: Db,
    cursor: PageCursor,
    limit: Limit = 50,
    state: Annotated[NotificationState | None, Query(description="Only those in this state.")] = None,
    target: Annotated[NotificationTarget | None, Query(description="Only those to this target.")] = None,
    kind: Annotated[NotificationKind | None, Query(description="Only those of this kind.")] = None,
    message: Annotated[UUID | None, Query(description="Only this message, for each target.")] = None,
) -> NotificationPage:
    """Messages to the webhook and to Slack, newest first. Needs the scope `admin`.

    What was sent is listed for a week, and what could not be sent for 90 days. A worker deletes messages to
    targets that are not configured, and those of kinds that are not switched on.
    """
    page = notifications.find(
        db, limit=limit, cursor=cursor, state=state, target=target, kind=kind, message=message
    )
    return NotificationPage(items=[NotificationOut.of(row) for row in page.items], next=page.next_cursor)


@router.post(
    "/notifications/test",
    operation_id="notifications:test",
    summary="Send a test message",
    status_code=202,
    response_description="The id of the message, which a worker is about to send",
    responses=problems(),
)
def send_test(who: CanAdminister, db: Db) -> MessageOut:
    """Have a worker send one message of the kind `test` to each target. Needs the scope `admin`.

    `GET /notifications?message=` shows what becomes of it. It shows nothing for a target that is not
    configured, once a worker has looked.
    """
    return MessageOut(message=notifications.send_test(db, who))
