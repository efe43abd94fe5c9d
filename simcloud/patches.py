"""Changes to other modules' classes and to the environment that can be taken back."""

import os
from typing import Any

_MISSING = object()


class Patches:
    """What was changed, and what was there before."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any]] = []
        self._environment: dict[str, str | None] = {}

    def set(self, owner: Any, name: str, value: Any) -> None:
        # What a class inherits is not its own: to take the change back is to delete it.
        own = vars(owner).get(name, _MISSING)
        self._undo.append((owner, name, own))
        setattr(owner, name, value)

    def set_environment(self, name: str, value: str) -> None:
        self._environment.setdefault(name, os.environ.get(name))
        os.environ[name] = value

    def undo(self) -> None:
        while self._undo:
            owner, name, value = self._undo.pop()
            if value is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
        for variable, before in self._environment.items():
            if before is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = before
        self._environment.clear()
