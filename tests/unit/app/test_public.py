"""Addresses are stored and shown: nothing secret may be left in them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.registry.public import public_text, public_uri


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("git+https://user:token@host.example/a/b.git@abc", "git+https://host.example/a/b.git@abc"),
        ("https://token@host.example/a", "https://host.example/a"),
        ("https://host.example:8443/a?X-Amz-Signature=secret#part", "https://host.example:8443/a"),
        ("ssh://git:secret@host.example/a.git", "ssh://host.example/a.git"),
        ("git@host.example:org/a.git", "host.example:org/a.git"),
        ("aws:eu-west-2:ami-0123", "aws:eu-west-2:ami-0123"),
        ("file:///srv/repository", "file:///srv/repository"),
        ("https://[broken", "https://"),
    ],
)
def test_users_passwords_and_queries_are_removed(uri: str, public: str) -> None:
    assert public_uri(uri) == public


WORD = st.text("abcxyz0189-._~%", min_size=1, max_size=12)


@given(st.sampled_from(["https", "http", "ssh", "git+https"]), WORD, WORD, WORD)
def test_no_user_or_password_survives(scheme: str, user: str, password: str, path: str) -> None:
    found = public_uri(f"{scheme}://{user}:{password}-secret@host.example/{path}?sig={password}-secret")
    assert "secret" not in found
    assert found == f"{scheme}://host.example/{path}"


ORIGIN = "https://deploy:pa%2Fss-5ecret@git.example/a.git?private_token=t0ken-5ecret"


@pytest.mark.parametrize(
    ("text", "public"),
    [
        (
            f"fatal: unable to access '{ORIGIN}': The requested URL returned error: 503",
            "fatal: unable to access 'https://git.example/a.git': The requested URL returned error: 503",
        ),
        (
            "read https://bucket.example/a.csv?X-Amz-Signature=5ecret and then http://u:5ecret@host.example/b",
            "read https://bucket.example/a.csv and then http://host.example/b",
        ),
        ("fatal: cannot reach user:5ecret@git.example:a.git", "fatal: cannot reach git.example:a.git"),
        (
            "At 12:30 the file a:b was read by me@example.org",
            "At 12:30 the file a:b was read by me@example.org",
        ),
        ("the password pa/ss-5ecret is wrong", "the password *** is wrong"),
    ],
)
def test_a_text_that_quotes_an_address_keeps_nothing_secret(text: str, public: str) -> None:
    assert public_text(text, ORIGIN) == public


def test_an_address_of_ssh_is_known_by_its_password() -> None:
    assert public_text("denied: 5ecret-word", "deploy:5ecret-word@git.example:a.git") == "denied: ***"


@pytest.mark.parametrize("piece", ["a", "a:", ":", "a@", "://", "a://", "x ", "'"])
def test_a_long_text_takes_no_longer_than_its_length_allows(piece: str) -> None:
    text = piece * (1 << 20)
    began = time.monotonic()
    public_text(text, ORIGIN)
    assert time.monotonic() - began < 20
