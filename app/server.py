"""Serves the API: who may reach it, and the server that it runs in."""

import ipaddress
import logging

import uvicorn

from app.main import create_app
from app.registry.access import AccessPolicy
from app.settings import Settings, SettingsError
from app.words import Access

_log = logging.getLogger(__name__)


def serve(settings: Settings, *, host: str, port: int) -> None:
    """Serve the API until SIGTERM or SIGINT. Raises SettingsError."""
    check_exposure(settings, host)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.INFO)
    policy = AccessPolicy(settings.access, settings.api_tokens)
    _log.log(logging.WARNING if policy.is_surprising else logging.INFO, "access is %s", policy.summary)
    # Not uvicorn's own asyncio loop: it leaves Nagle's algorithm on, and keep-alive requests wait 44 ms each.
    uvicorn.run(
        create_app(settings), host=host, port=port, loop="uvloop", http="httptools", log_level="warning"
    )


def check_exposure(settings: Settings, host: str) -> None:
    """Raises SettingsError when everyone in a network could change everything, unless that is meant."""
    if settings.access is Access.OPEN and not settings.open_to_network and not _is_loopback(host):
        message = (
            f"REGISTRY_ACCESS=open lets everyone who can reach {host} change everything. "
            "Listen on 127.0.0.1, or set REGISTRY_ACCESS to reads or tokens. "
            "If it is meant, set REGISTRY_OPEN_TO_NETWORK=true."
        )
        raise SettingsError(message)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # Any other name may mean any address.
        return host == "localhost"
