"""Who may be let in from the network."""

import pytest

from app.server import check_exposure
from app.settings import Settings, SettingsError
from app.words import Access

LOOPBACK = ["127.0.0.1", "127.8.8.8", "::1", "localhost"]
NETWORK = ["0.0.0.0", "::", "192.168.1.7", "10.0.0.1", "registry.example", "fe80::1", ""]


def settings(access: Access, **more: bool) -> Settings:
    return Settings.model_validate({"database_url": "postgresql://host/name", "access": access, **more})


@pytest.mark.parametrize("host", NETWORK)
def test_open_access_is_refused_where_others_can_reach_it(host: str) -> None:
    with pytest.raises(SettingsError, match="REGISTRY_ACCESS=open lets everyone who can reach"):
        check_exposure(settings(Access.OPEN), host)
    check_exposure(settings(Access.OPEN, open_to_network=True), host)


@pytest.mark.parametrize("host", LOOPBACK)
def test_open_access_is_fine_on_this_machine(host: str) -> None:
    check_exposure(settings(Access.OPEN), host)


@pytest.mark.parametrize("host", [*LOOPBACK, *NETWORK])
@pytest.mark.parametrize("access", [Access.READS, Access.TOKENS])
def test_access_by_tokens_may_be_reached_from_everywhere(access: Access, host: str) -> None:
    check_exposure(settings(access), host)


def test_reading_is_all_that_is_open_unless_a_setting_says_otherwise() -> None:
    assert Settings.model_validate({"database_url": "postgresql://host/name"}).access is Access.READS
