"""Which machine image is chosen: by version, architecture and state, never by a date alone."""

from fnmatch import fnmatchcase
from typing import Any

import pytest

from worker.steps.image import choose

X86 = frozenset({"x86_64"})
PATTERN = "FPO Training *"


def image(name: str, created: str = "2026-01-01T00:00:00.000Z", **more: Any) -> Any:
    return {
        "ImageId": f"ami-{name}",
        "Name": name,
        "CreationDate": created,
        "State": "available",
        "Architecture": "x86_64",
        **more,
    }


def name_of(*images: Any, pattern: str = PATTERN) -> str | None:
    chosen = choose(images, pattern, X86).image
    return None if chosen is None else chosen["Name"]


def test_a_patch_of_an_older_line_that_was_made_later_does_not_win() -> None:
    older = image("FPO Training 1.9.7", "2026-11-01T00:00:00.000Z")
    assert name_of(image("FPO Training 1.10.0"), older) == "FPO Training 1.10.0"


def test_a_release_wins_over_its_own_pre_release() -> None:
    later = image("FPO Training 2.0.0-rc.1", "2026-11-01T00:00:00.000Z")
    assert name_of(image("FPO Training 2.0.0"), later) == "FPO Training 2.0.0"


def test_a_pre_release_is_taken_only_where_there_is_no_release() -> None:
    test_version = image("FPO Training 3.0.0-rc.1")
    assert name_of(image("FPO Training 2.0.0"), test_version) == "FPO Training 2.0.0"
    assert name_of(test_version) == "FPO Training 3.0.0-rc.1"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("FPO Training 1.*", "FPO Training 1.10.0"),
        ("FPO Training 1.9.*", "FPO Training 1.9.0"),
        ("FPO * *", "FPO Training 2.0.0"),
        ("FPO?Training *", "FPO Training 2.0.0"),
        ("FPO Training 1.9.0", "FPO Training 1.9.0"),
        ("*", None),
    ],
)
def test_a_pattern_may_fix_a_line_of_versions_or_have_more_wildcards(
    pattern: str, expected: str | None
) -> None:
    names = [f"FPO Training {version}" for version in ("1.9.0", "1.10.0", "2.0.0", "1.11.0 backup")]
    matching = [image(name) for name in names if fnmatchcase(name, pattern)]
    assert name_of(*matching, pattern=pattern) == expected


def test_a_copy_under_another_name_another_architecture_and_another_state_are_passed_over_and_named() -> None:
    images = [
        image("FPO Training 3.0.0 backup"),
        image("FPO Training 2.0.0", Architecture="arm64"),
        image("FPO Training 1.9.0", State="pending"),
        image("FPO Training test"),
    ]
    choice = choose(images, PATTERN, X86)
    assert choice.image is None
    assert choice.passed_over == (
        "'FPO Training 3.0.0 backup' does not end in a semantic version",
        "'FPO Training 2.0.0' is for arm64",
        "'FPO Training 1.9.0' is pending",
        "'FPO Training test' does not end in a semantic version",
    )
    assert name_of(*images, image("FPO Training 1.0.0")) == "FPO Training 1.0.0"


def test_the_newest_of_one_version_wins() -> None:
    first, second = image("FPO Training 1.0.0"), image("FPO Training 1.0.0", "2026-02-01T00:00:00.000Z")
    chosen = choose([second, first], PATTERN, X86).image
    assert chosen is second


def test_a_pattern_without_a_version_takes_the_newest() -> None:
    newer = image("trainer-b", "2026-02-01T00:00:00.000Z")
    assert name_of(newer, image("trainer-a"), pattern="trainer-?") == "trainer-b"
