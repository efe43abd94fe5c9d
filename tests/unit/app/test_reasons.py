"""A reason is a text in which a reader sees something."""

import pytest

from app.registry.reasons import is_reason


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        " ",
        "\t\n",
        "\u00a0",
        "\u200b",
        "\u200d\ufeff",
        "\u2060 \u3000",
        "\u00ad",
        "\u3164",
        "\u2800",
        "\u034f",
        "\ufe0f",
    ],
    ids=ascii,
)
def test_what_nobody_can_see_is_not_a_reason(text: str | None) -> None:
    assert not is_reason(text)


@pytest.mark.parametrize("text", ["x", " \u200bwhy", "日本", "1", "?", "🔥", "e\u0301"])
def test_what_can_be_seen_is_a_reason(text: str) -> None:
    assert is_reason(text)
