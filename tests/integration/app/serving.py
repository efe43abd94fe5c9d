"""The API on a socket, as it runs in production: in this process, or as one of its own."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn

from app.api.builds.following import Following
from app.main import create_app
from app.server import StreamingServer, server_config
from app.settings import Settings

ROOT = Path(__file__).resolve().parents[3]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def served(settings: Settings, port: int) -> Iterator[Following]:
    """The API in a thread, until it is told to stop."""
    app = create_app(settings)
    server = StreamingServer(server_config(app, "127.0.0.1", port), app.state.following)
    with running(server):
        yield app.state.following


@contextmanager
def running(server: uvicorn.Server) -> Iterator[None]:
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@contextmanager
def api_process(database_url: str, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """`tariff-registry api`, ready. Whoever has not ended it by then kills it at the end."""
    environment = os.environ | {
        "DATABASE_URL": database_url,
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "REGISTRY_ACCESS": "open",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "app", "api", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as process:
        try:
            for _ in range(600):
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/readyz").is_success:
                        break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield process
        finally:
            process.kill()
