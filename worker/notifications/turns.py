"""Takes the messages to one target that are due, and sends them one after the other."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING

from app.db.session import Database
from app.registry import notifications
from app.registry.notifications import Claimed
from app.words import NotificationState, NotificationTarget
from worker.errors import NoAnswer
from worker.notifications.targets import Target

if TYPE_CHECKING:
    from worker.notifications.sending import Answer, Sender

_log = logging.getLogger(__name__)

# How long a message waits after each try: from the first delay on, twice as long each time.
_FIRST_WAIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(hours=1)
# What a target refuses, it will mostly refuse again, until somebody corrects a setting.
_FIRST_WAIT_AFTER_REFUSAL = timedelta(minutes=5)

# After how many messages in a row that the target could not take, the turn ends.
_TROUBLES = 3

_FOR_A_MOMENT = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


def send_due(
    database: Database, name: NotificationTarget, targets: Mapping[NotificationTarget, Target]
) -> int:
    """Send what is due to the target. Returns how many messages it took.

    A message that the target does not take is put off, and the others go on. While the target is down, a few
    of them find that out in each turn. Where the target is not configured, its messages are only deleted.
    """
    target = targets.get(name)
    with database.transaction() as session:
        notifications.tidy(session, name, target.kinds if target is not None else ())
    if target is None:
        return 0
    claimed = _claim(database, target)
    if claimed is None:
        return 0
    # Not at the top, because a worker that has nothing to send need not hold the HTTP client in memory.
    from worker.notifications.sending import Sender  # noqa: PLC0415

    count = troubles = 0
    with Sender() as sender:
        while claimed is not None:
            if _send(database, target, claimed, sender):
                count, troubles = count + 1, 0
            else:
                troubles += 1
            claimed = _claim(database, target) if troubles < _TROUBLES else None
    return count


def _claim(database: Database, target: Target) -> Claimed | None:
    with database.transaction() as session:
        return notifications.claim(session, target.name, target.kinds)


def _send(database: Database, target: Target, claimed: Claimed, sender: "Sender") -> bool:
    """Send the message, and record what became of it. Returns whether the target took it."""
    try:
        body, headers = target.content(claimed, datetime.now(UTC))
        answer = sender.post(target.url, body, headers)
    except NoAnswer as exc:
        _put_off(database, target, claimed, str(exc), _wait(_FIRST_WAIT, claimed.attempt))
        return False
    except Exception as exc:
        # One message that cannot be sent must not keep the others waiting, whatever the reason.
        _log.exception("notification=%s target=%s", claimed.message, target.name)
        error = f"{type(exc).__name__}: {exc}"
        _put_off(database, target, claimed, error, _wait(_FIRST_WAIT_AFTER_REFUSAL, claimed.attempt))
        return False
    if HTTPStatus(200) <= answer.status < HTTPStatus(300):
        with database.transaction() as session:
            notifications.sent(session, claimed)
        _log.info("notification=%s kind=%s sent to %s", claimed.message, claimed.kind, target.name)
        return True
    error = _explained(answer)
    if answer.status == HTTPStatus.GONE:
        with database.transaction() as session:
            given_up = notifications.give_up(session, claimed, error)
        if given_up:
            _log_given_up(target, claimed, error)
        return False
    _put_off(database, target, claimed, error, _wait_after(answer, claimed.attempt))
    return False


def _wait_after(answer: "Answer", attempt: int) -> timedelta:
    refused = answer.status < HTTPStatus.INTERNAL_SERVER_ERROR and answer.status not in _FOR_A_MOMENT
    wait = _wait(_FIRST_WAIT_AFTER_REFUSAL if refused else _FIRST_WAIT, attempt)
    if answer.retry_after_s is not None:
        wait = max(wait, timedelta(seconds=min(answer.retry_after_s, LONGEST_WAIT.total_seconds())))
    return wait


def _wait(first: timedelta, attempt: int) -> timedelta:
    return min(LONGEST_WAIT, first * (1 << min(attempt - 1, 16)))


def _explained(answer: "Answer") -> str:
    said = f": {answer.excerpt}" if answer.excerpt else ""
    error = f"The target answered {answer.status}{said}"
    if HTTPStatus.MULTIPLE_CHOICES <= answer.status < HTTPStatus.BAD_REQUEST:
        error += ". Redirects are not followed: configure the address that it leads to."
    return error


def _put_off(database: Database, target: Target, claimed: Claimed, error: str, wait: timedelta) -> None:
    # The address may be a secret, and an error may quote it.
    error = error.replace(target.url, "(the target's address)")
    with database.transaction() as session:
        state = notifications.put_off(session, claimed, error, wait)
    if state is NotificationState.FAILED:
        _log_given_up(target, claimed, error)
    elif state is NotificationState.PENDING:
        _log.warning(
            "notification=%s kind=%s not sent to %s, again in %s: %s",
            claimed.message,
            claimed.kind,
            target.name,
            wait,
            error,
        )


def _log_given_up(target: Target, claimed: Claimed, error: str) -> None:
    _log.error(
        "notification=%s kind=%s given up after %d attempts to send it to %s: %s",
        claimed.message,
        claimed.kind,
        claimed.attempt,
        target.name,
        error,
    )
