"""A git host on this computer: git's own server behind HTTP, with users, and with failures on request."""

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class GitHost:
    """Serves one bare repository to whoever sends the right user and password."""

    def __init__(self, repository: Path, port: int, user: str, password: str) -> None:
        self.repository = repository
        self.user = user
        self.password = password
        self.port = port
        self.failures: list[int] = []
        """The statuses that the next requests get instead of an answer."""
        self.requests = 0

    @property
    def public_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{self.repository.name}"

    @property
    def url(self) -> str:
        return self.public_url.replace("://", f"://{self.user}:{self.password}@")


@contextmanager
def git_host(repository: Path, *, user: str = "deploy", password: str = "hunter2-token") -> Iterator[GitHost]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def log_message(self, *_: Any) -> None:
            """No lines in the tests' output."""

        def _serve(self) -> None:
            host.requests += 1
            if host.failures:
                self.send_error(host.failures.pop(0))
                return
            expected = base64.b64encode(f"{host.user}:{host.password}".encode()).decode()
            if self.headers.get("Authorization") != f"Basic {expected}":
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            done = subprocess.run(
                ["git", "http-backend"],
                input=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
                stdout=subprocess.PIPE,
                # It fails too when it has told the client what it does not have.
                check=False,
                env={
                    "PATH": os.environ["PATH"],
                    "GIT_PROJECT_ROOT": str(host.repository.parent),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "REQUEST_METHOD": self.command,
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                    "GIT_CONFIG_COUNT": "1",
                    "GIT_CONFIG_KEY_0": "safe.directory",
                    "GIT_CONFIG_VALUE_0": "*",
                },
            )
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            headers = [line.split(": ", 1) for line in head.decode().split("\r\n")]
            status = next((value for name, value in headers if name == "Status"), "200")
            self.send_response(int(status.split()[0]))
            for name, value in headers:
                if name != "Status":
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    host = GitHost(repository, server.server_address[1], user, password)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
