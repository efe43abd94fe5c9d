"""What a simulated cloud changes in its process, so that it can be taken back: moto is global."""

import os
from typing import Any

from moto.core.base_backend import BackendDict
from moto.s3.models import s3_backends

_MISSING = object()
_ALL: Any = BackendDict


class Patches:
    """Attributes of classes and modules, and environment variables."""

    def __init__(self) -> None:
        self._attributes: list[tuple[Any, str, Any]] = []
        self._environment: dict[str, str] = {}
        self._before: list[tuple[Any, str, Any]] = []
        self._environment_before: dict[str, str | None] = {}

    def set(self, owner: Any, name: str, value: Any) -> None:
        self._attributes.append((owner, name, value))
        self._apply(owner, name, value)

    def set_environment(self, name: str, value: str) -> None:
        self._environment[name] = value
        self._apply_environment(name, value)

    def undo(self) -> None:
        """Put everything back. What was set is remembered for `redo`."""
        while self._before:
            owner, name, value = self._before.pop()
            if value is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
        for variable, before in self._environment_before.items():
            if before is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = before
        self._environment_before.clear()

    def redo(self) -> None:
        for owner, name, value in self._attributes:
            self._apply(owner, name, value)
        for variable, value in self._environment.items():
            self._apply_environment(variable, value)

    def _apply(self, owner: Any, name: str, value: Any) -> None:
        # What a class inherits is not its own: to take the change back is to delete it.
        self._before.append((owner, name, vars(owner).get(name, _MISSING)))
        setattr(owner, name, value)

    def _apply_environment(self, name: str, value: str) -> None:
        self._environment_before.setdefault(name, os.environ.get(name))
        os.environ[name] = value


class Backends:
    """Everything that moto holds, put aside while another simulated cloud of the same process runs."""

    def __init__(self) -> None:
        self._held = [(services, dict(services)) for services in _ALL._instances]  # noqa: SLF001
        self._bucket_accounts = dict(s3_backends.bucket_accounts)
        for services, _ in self._held:
            services.clear()
        _ALL._instances.clear()  # noqa: SLF001
        s3_backends.bucket_accounts.clear()

    def put_back(self) -> None:
        BackendDict.reset()
        for services, accounts in self._held:
            services.update(accounts)
            _ALL._instances.append(services)  # noqa: SLF001
        s3_backends.bucket_accounts.update(self._bucket_accounts)
