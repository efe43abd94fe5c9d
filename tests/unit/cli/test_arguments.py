"""What a shell hands over: empty variables, newlines, secrets in the wrong place."""

import pytest

from cli import arguments
from cli.arguments import ArgumentError, model_prefix, optional, registry_token, registry_url


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REGISTRY_URL", "REGISTRY_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("value", ["", " ", "\n", "\t \n"])
def test_an_empty_value_is_refused_by_the_name_of_its_option(value: str) -> None:
    with pytest.raises(ArgumentError, match="--base is empty"):
        optional(value, "--base")


@pytest.mark.parametrize("value", ["", "  \n"])
def test_an_empty_variable_is_not_the_same_as_one_that_is_not_set(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert registry_url(None) == arguments.DEFAULT_URL
    assert registry_token(None) is None
    monkeypatch.setenv("REGISTRY_URL", value)
    monkeypatch.setenv("REGISTRY_TOKEN", value)
    with pytest.raises(ArgumentError, match="REGISTRY_URL is empty"):
        registry_url(None)
    with pytest.raises(ArgumentError, match="REGISTRY_TOKEN is empty"):
        registry_token(None)
    # What is written on the command line counts more than the variable.
    assert registry_url("https://registry.example.org") == "https://registry.example.org"


def test_space_around_a_value_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_TOKEN", "secret\n")
    monkeypatch.setenv("REGISTRY_URL", " https://registry.example.org/api\r\n")
    assert registry_token(None) == "secret"
    assert registry_url(None) == "https://registry.example.org/api"


@pytest.mark.parametrize(
    "token", ["two words", "s3cret\nX-Other: 1", "s3crét", "s3cret\x00", "s3cret\x1b[2J"]
)
def test_a_token_that_cannot_be_sent_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        registry_token(token)
    assert "s3cr" not in str(refused.value)
    assert "two" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "registry.example.org",
        "ftp://registry.example.org",
        "https://",
        "http://[::1",
        "https://a b",
        "https://ci:s3cret@registry.example.org",
        "https://registry.example.org?token=s3cret",
        "https://registry.example.org#s3cret",
    ],
)
def test_a_url_that_is_not_that_of_a_registry_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        registry_url(url)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("prefix", ["0.0.2-aff1242", "1.0.0-rc.1-aff1242", " 0.0.2-aff1242\n"])
def test_a_prefix_is_a_version_and_seven_digits(prefix: str) -> None:
    assert model_prefix(prefix) == prefix.strip()


@pytest.mark.parametrize(
    "prefix", ["..", "0.0.2", "0.0.2-aff1242/../x", "0.0.2-AFF1242", "0.0.2-aff1242?x", "-"]
)
def test_anything_else_is_not_a_prefix(prefix: str) -> None:
    with pytest.raises(ArgumentError, match="not a prefix"):
        model_prefix(prefix)
