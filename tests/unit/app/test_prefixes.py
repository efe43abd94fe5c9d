"""Versions' order, prefixes, and the decision whether a commit needs a model."""

import functools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.registry.errors import Invalid, InvalidConfig
from app.registry.prefixes import MAX_VERSION, Base, NotNeeded, Prefix, decide, parse_sha, parse_version

numbers = st.integers(0, 10**6)
identifiers = st.one_of(numbers.map(str), st.from_regex(r"[0-9]*[A-Za-z-][0-9A-Za-z-]{0,6}", fullmatch=True))
pre_releases = st.lists(identifiers, max_size=3).map(".".join)
shas = st.text("0123456789abcdef", min_size=40, max_size=40).filter(lambda sha: sha.strip("0"))


@st.composite
def versions(draw: st.DrawFn) -> str:
    core = ".".join(str(draw(numbers)) for _ in range(3))
    pre = draw(pre_releases)
    version = f"{core}-{pre}" if pre else core
    assume(len(version) <= MAX_VERSION)
    return version


def config(version: str) -> str:
    return f'version = "{version}"'


def risen(version: str, base: str) -> int:
    """1 when a model is needed, 0 when unchanged, -1 when rolled back."""
    reason = decide(version, Base.read(config(base)).version)
    return {None: 1, NotNeeded.VERSION_UNCHANGED: 0, NotNeeded.VERSION_ROLLED_BACK: -1}[reason]


@given(versions(), shas)
def test_a_prefix_is_read_back_as_it_was_made(version: str, sha: str) -> None:
    made = Prefix.of(version, sha)
    assert Prefix.parse(str(made)) == made
    assert str(made) == f"{version}-{sha[:7]}"


@given(versions(), versions())
def test_of_two_versions_one_has_risen_or_both_rank_alike(one: str, other: str) -> None:
    assert risen(one, other) == -risen(other, one)
    assert risen(one, one) == 0


@given(st.lists(versions(), min_size=3, max_size=3))
def test_the_order_of_versions_has_no_cycles(three: list[str]) -> None:
    low, middle, high = sorted(three, key=functools.cmp_to_key(risen))
    assert risen(middle, low) >= 0
    assert risen(high, middle) >= 0
    assert risen(high, low) >= 0


@given(st.tuples(numbers, numbers, numbers), st.tuples(numbers, numbers, numbers))
def test_releases_are_ordered_as_numbers_not_as_text(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    assume(one != other)
    expected = 1 if one > other else -1
    assert risen(".".join(map(str, one)), ".".join(map(str, other))) == expected


@given(st.tuples(numbers, numbers, numbers), pre_releases.filter(bool))
def test_a_release_ranks_above_its_pre_releases(core: tuple[int, ...], pre: str) -> None:
    release = ".".join(map(str, core))
    assert risen(release, f"{release}-{pre}") == 1


def test_the_order_of_semver_org() -> None:
    names = "alpha alpha.1 alpha.beta beta beta.2 beta.11 rc.1"
    ranked = [*(f"1.0.0-{name}" for name in names.split()), "1.0.0"]
    for at, lower in enumerate(ranked):
        for higher in ranked[at + 1 :]:
            assert risen(higher, lower) == 1


@pytest.mark.parametrize(
    ("base", "says"),
    [
        ('version = "one"', "has the version 'one'"),
        ('version = "v1.0.0"', "has the version 'v1.0.0'"),
        ("version = 1", "has the version 1"),
        ('name = "without a version"', "has no version"),
        (f'version = "1.{"9" * 6000}.0"', "has the version '1.999"),
    ],
)
def test_a_base_without_a_version_does_not_keep_a_repair_from_building(base: str, says: str) -> None:
    read = Base.read(base)
    assert decide("0.0.1", read.version) is None
    assert says in (read.problem or "")
    assert "Write MAJOR.MINOR.PATCH" in (read.problem or "")


def test_without_a_base_a_model_is_needed_and_nothing_is_wrong() -> None:
    read = Base.read(None)
    assert (decide("0.0.1", read.version), read.problem) == (None, None)


def test_a_byte_order_mark_does_not_hide_the_version_of_the_base() -> None:
    assert decide("0.0.1", Base.read("\ufeff" + config("0.0.1")).version) is NotNeeded.VERSION_UNCHANGED


@pytest.mark.parametrize(
    "base",
    [
        "",
        "\n\n",
        "# only a comment",
        "this is = = no TOML",
        "fatal: path 'search-config.toml' does not exist in 'origin/main'",
        '<<<<<<< HEAD\nversion = "0.0.1"\n=======\nversion = "0.0.2"\n>>>>>>> other\n',
        "<!DOCTYPE html><html></html>",
        'Version = "0.0.1"',
        "a = " + "[" * 3000,
        "a = " + "9" * 6000,
    ],
)
def test_a_base_that_is_not_a_configuration_is_refused(base: str) -> None:
    with pytest.raises(InvalidConfig, match=r"is not a search-config\.toml: .*Send the base branch's file"):
        Base.read(base)


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "0.0.2",
        "aff1242",
        "-aff1242",
        "0.0.2-",
        "0.0.2-aff124",
        "0.0.2-aff12423",
        "0.0.2-AFF1242",
        "0.0.2-aff124g",
        "0.2-aff1242",
        "00.0.2-aff1242",
        "0.0.2+b1-aff1242",
        "0.0.2-aff1242\n",
        "0.0.2\n-aff1242",
        "0.٣.2-aff1242",
        "../../etc-aff1242",
        f"1.{'9' * 5000}.0-aff1242",
    ],
)
def test_what_is_not_a_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(Invalid, match="is not a prefix"):
        Prefix.parse(prefix)


@pytest.mark.parametrize(
    "sha", ["", "aff124", "aff1242", "a" * 39, "a" * 41, "g" * 40, "a" * 40 + "\x00", "a" * 39 + "٣"]
)
def test_what_is_not_a_whole_commit_is_refused_with_what_to_send(sha: str) -> None:
    with pytest.raises(Invalid, match="git rev-parse HEAD"):
        parse_sha(sha)


def test_a_commit_is_compared_in_lower_case() -> None:
    assert parse_sha(f" {'AFF1242B' * 5} ") == "aff1242b" * 5


def test_forty_zeros_are_not_a_commit() -> None:
    with pytest.raises(Invalid, match="deleted branch"):
        parse_sha("0" * 40)


@pytest.mark.parametrize("version", ["1.0.0+build.5", "v1.0.0", "1.0", "1.0.0 ", f"1.0.0-{'a' * 200}"])
def test_versions_that_cannot_be_in_a_prefix_are_refused(version: str) -> None:
    with pytest.raises(Invalid, match=r"such as 0\.0\.2"):
        parse_version(version)
