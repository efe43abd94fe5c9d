"""Settings: what is refused at the start, rather than found out later."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.settings import Settings, Token
from app.words import NotificationKind, Scope

DIGEST = "9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08"

SECRET = "whsec_" + "aGlkZGVu" * 4


def make(**more: Any) -> Settings:
    return Settings.model_validate({"database_url": "postgresql://user:hidden@host/name", **more})


def test_tokens_are_read_from_one_line() -> None:
    tokens = make(api_tokens=f" ci={DIGEST} , deploy={DIGEST}:read+promote:staging, ").api_tokens
    assert tokens == (
        Token("ci", DIGEST.lower(), frozenset(Scope) - {Scope.ADMIN}),
        Token("deploy", DIGEST.lower(), frozenset({Scope.READ, Scope.PROMOTE_STAGING})),
    )


def test_a_scope_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(
        ValidationError, match=r"entry 2 names the scopes .*promote.* The scopes are: read, build"
    ):
        make(api_tokens=f"ci={DIGEST},deploy={DIGEST}:read+promote")


@pytest.mark.parametrize(
    "tokens",
    [
        "hush",
        "ci=hush",
        f"={DIGEST}",
        f"ci={DIGEST}0",
        f"ci={DIGEST[:-1]}ü",
        f"ci={DIGEST}:",
        f"ci:hush={DIGEST}",
    ],
)
def test_a_token_that_could_never_fit_is_refused_and_not_shown(tokens: str) -> None:
    with pytest.raises(ValidationError, match="sha256sum") as refused:
        make(api_tokens=tokens)
    assert "hush" not in str(refused.value)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"database_url": "mysql://host/name"}, "DATABASE_URL must look like"),
        ({"database_url": "nothing"}, "DATABASE_URL must look like"),
        ({"lease": "PT0.5S"}, "REGISTRY_LEASE"),
        ({"heartbeat": "PT30S", "stalled_after": "PT30S"}, "REGISTRY_STALLED_AFTER"),
        ({"presigned_url_lifetime": "P8D"}, "presigned_url_lifetime"),
        ({"presigned_url_lifetime": "PT1S"}, "presigned_url_lifetime"),
        (
            {"webhook_url": "http://host/", "webhook_secret": SECRET},
            "REGISTRY_WEBHOOK_URL must be an address",
        ),
        (
            {"webhook_url": "https://a:b/", "webhook_secret": SECRET},
            "REGISTRY_WEBHOOK_URL must be an address",
        ),
        ({"slack_webhook_url": ""}, "REGISTRY_SLACK_WEBHOOK_URL must be an address"),
        ({"webhook_url": "https://host/"}, "Set both, or neither"),
        ({"webhook_secret": SECRET}, "Set both, or neither"),
        ({"slack_events": "build.ended,build.begun"}, "build.ended"),
        ({"slack_events": "test"}, "slack_events"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        make(**changes)


def test_the_password_is_not_shown() -> None:
    assert "hidden" not in repr(make())


@pytest.mark.parametrize("secret", ["hidden", "whsec_hidden", "whsec_aGlkZGVu", f"{SECRET},whsec_hidden="])
def test_a_secret_of_the_webhook_that_receivers_would_refuse_is_not_shown(secret: str) -> None:
    with pytest.raises(ValidationError, match=r"entry [12] is not whsec_ and 24 to 64 bytes") as refused:
        make(webhook_url="https://host/", webhook_secret=secret)
    assert "hidden" not in str(refused.value)


def test_what_is_sent_where_can_be_chosen() -> None:
    chosen = make(
        webhook_url="http://127.0.0.1:1/hidden",
        webhook_secret=f"{SECRET}, {SECRET}",
        webhook_events="stage.promoted, build.ended",
        slack_webhook_url="https://hooks.example/hidden",
    )
    assert chosen.webhook_events == (NotificationKind.STAGE_PROMOTED, NotificationKind.BUILD_ENDED)
    assert len(chosen.webhook_secret) == 2
    assert NotificationKind.MODEL_MARKED not in chosen.slack_events
    assert set(make().webhook_events) == set(NotificationKind) - {NotificationKind.TEST}
    assert "hidden" not in repr(chosen)
