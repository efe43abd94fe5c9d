"""A proxy between the command line and the API that does what bad networks and bad proxies do."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """Passes connections on to a port of this machine, and cuts or keeps what it is told to."""

    target: int
    # After so many bytes of answers, a connection is cut. None for never.
    cut_after: int | None = None
    # The number of connections that are cut. Later ones pass.
    cuts: int = 0
    # The connection of a request whose head has this text is closed.
    refuses: bytes | None = None
    connections: int = 0
    _server: socket.socket = field(default_factory=socket.socket)
    _open: list[socket.socket] = field(default_factory=list)

    @property
    def port(self) -> int:
        port: int = self._server.getsockname()[1]
        return port

    def start(self) -> None:
        self._server.bind(("127.0.0.1", 0))
        self._server.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        for each in (self._server, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self.connections += 1
                self._open.append(client)
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.target)) as api:
            self._open.append(api)
            threading.Thread(target=self._requests, args=(client, api), daemon=True).start()
            passed = 0
            while data := api.recv(4096):
                passed += len(data)
                if self.cut_after is not None and passed > self.cut_after and self.cuts:
                    self.cuts -= 1
                    # In the middle of what was just sent.
                    client.sendall(data[: len(data) // 2])
                    break
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        client.close()

    def _requests(self, client: socket.socket, api: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self.refuses is not None and self.refuses in data:
                    api.shutdown(socket.SHUT_RDWR)
                    return
                api.sendall(data)


@contextmanager
def proxied(target: int, **behaviour: int | bytes | None) -> Iterator[Proxy]:
    proxy = Proxy(target, **behaviour)  # type: ignore[arg-type]
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
