"""Where notifications are sent to, and what is sent there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import quote

from app.registry.notifications import Claimed
from app.settings import Settings
from app.webhooks import SigningSecret
from app.words import NotificationKind, NotificationTarget
from worker.notifications import slack


class Target(Protocol):
    """A place that takes messages by POST."""

    @property
    def name(self) -> NotificationTarget: ...

    @property
    def kinds(self) -> frozenset[NotificationKind]:
        """The kinds of messages that are sent there."""
        ...

    @property
    def url(self) -> str:
        """Its address, which may hold a secret."""
        ...

    def content(self, message: Claimed, at: datetime) -> tuple[bytes, Mapping[str, str]]:
        """The body and the headers of a request that is sent at this time."""
        ...


@dataclass(frozen=True)
class Webhook:
    """Takes messages as Standard Webhooks describes them, signed with each of the secrets."""

    url: str = field(repr=False)
    secrets: tuple[SigningSecret, ...]
    kinds: frozenset[NotificationKind]
    public_url: str | None

    name = NotificationTarget.WEBHOOK

    def content(self, message: Claimed, at: datetime) -> tuple[bytes, Mapping[str, str]]:
        page = page_of(message, self.public_url)
        # The signature is over exactly these bytes.
        body = json.dumps(
            {
                "type": message.kind,
                "timestamp": message.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
                "url": page,
                "data": message.data,
            },
            ensure_ascii=False,
        ).encode()
        message_id, sent_at = f"msg_{message.message}", int(at.timestamp())
        signatures = " ".join(secret.sign(message_id, sent_at, body) for secret in self.secrets)
        return body, {
            "Content-Type": "application/json",
            "Webhook-Id": message_id,
            "Webhook-Timestamp": str(sent_at),
            "Webhook-Signature": signatures,
        }


@dataclass(frozen=True)
class Slack:
    """An incoming webhook of Slack. Its address is its secret."""

    url: str = field(repr=False)
    kinds: frozenset[NotificationKind]
    public_url: str | None

    name = NotificationTarget.SLACK

    def content(self, message: Claimed, at: datetime) -> tuple[bytes, Mapping[str, str]]:
        del at
        body = slack.body(message, page_of(message, self.public_url))
        return json.dumps(body).encode(), {"Content-Type": "application/json"}


def targets_of(settings: Settings) -> dict[NotificationTarget, Target]:
    """The targets that are configured."""
    found: list[Target] = []
    always = frozenset({NotificationKind.TEST})
    if settings.webhook_url is not None:
        found.append(
            Webhook(
                settings.webhook_url.get_secret_value(),
                settings.webhook_secret,
                always.union(settings.webhook_events),
                settings.public_url,
            )
        )
    if settings.slack_webhook_url is not None:
        found.append(
            Slack(
                settings.slack_webhook_url.get_secret_value(),
                always.union(settings.slack_events),
                settings.public_url,
            )
        )
    return {target.name: target for target in found}


# Where in the API a reader finds more, and the field of the data that says which one.
_PAGES = {
    NotificationKind.BUILD_ENDED.value: ("builds", "build"),
    NotificationKind.COLLECTION_ENDED.value: ("runs", "run"),
}
_OF_A_MODEL = ("models", "prefix")


def page_of(message: Claimed, public_url: str | None) -> str | None:
    """The address of what the message is about. None if it, or the registry's own, is not known."""
    path, name = _PAGES.get(message.kind, _OF_A_MODEL)
    which = message.data.get(name)
    if public_url is None or which is None:
        return None
    return f"{public_url.rstrip('/')}/{path}/{quote(str(which), safe='')}"
