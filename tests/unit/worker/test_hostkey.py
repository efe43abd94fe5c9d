"""The host key that the registry gives an instance."""

from hypothesis import given
from hypothesis import strategies as st

from worker.machine.hostkey import derive
from worker.machine.remote import load_key

WORDS = st.text(st.characters(codec="utf-8"))


@given(WORDS, WORDS)
def test_the_private_key_is_one_that_openssh_reads_and_belongs_to_the_public_one(
    pem: str, token: str
) -> None:
    made = derive(pem, token)
    key = load_key(made.private)
    assert f"{key.get_name()} {key.get_base64()}" == made.public


def test_every_worker_derives_the_same_and_every_launch_has_its_own() -> None:
    assert derive("pem\n", "token") == derive("pem", "token")
    assert len({derive(pem, token).public for pem in ("a", "b") for token in ("x", "y")}) == 4
