"""Where an input came from is public: nothing secret may be in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.registry.inputs import public_uri


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
