"""A build's folder on its instance. Only the worker that holds the build's lease can write to it.

A worker that was paused may wake up after another one has taken the build. So every command with a side
effect runs under a lock file, and compares the epoch of its worker's lease with the highest that the folder
has seen.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

from app.registry.builds.lease import LeaseLost
from worker.machine.remote import CommandFailed, Remote, RemoteFault, RemoteLost

_LOCK_WAIT_S = 60
_FAULT, _OUTDATED, _LOCKED = 96, 97, 98

# The command does not inherit the lock, because a background process of it would hold the lock until it ends.
_FENCED = """\
mkdir -p {folder} && exec 9>>{folder}/fence || exit {fault}
flock --wait {wait} 9 || exit {locked}
seen=$(cat {folder}/epoch 2>/dev/null)
[ "${{seen:-0}}" -le {epoch} ] || exit {outdated}
echo {epoch} >{folder}/epoch.partial && mv {folder}/epoch.partial {folder}/epoch || exit {fault}
( {command}
) 9>&-
"""


@dataclass(frozen=True)
class Workspace:
    """`path` is the build's folder; `epoch` is that of the worker's lease."""

    remote: Remote
    path: str
    epoch: int

    def run(self, command: str, *, timeout_s: float) -> str:
        """The command's output.

        Raises CommandFailed, RemoteLost, RemoteFault where the folder cannot be written, and LeaseLost for
        an outdated epoch.
        """
        fenced = _FENCED.format(
            folder=shlex.quote(self.path),
            wait=_LOCK_WAIT_S,
            fault=_FAULT,
            locked=_LOCKED,
            outdated=_OUTDATED,
            epoch=self.epoch,
            command=command,
        )
        try:
            return self.remote.run(fenced, timeout_s=timeout_s + _LOCK_WAIT_S)
        except CommandFailed as exc:
            if exc.status == _OUTDATED:
                message = f"another worker has taken the build: {self.path} has seen a later epoch"
                raise LeaseLost(message) from exc
            if exc.status == _FAULT:
                message = f"{self.path} cannot be written: {exc.output.strip()}"
                raise RemoteFault(message) from exc
            if exc.status == _LOCKED:
                message = f"another worker's command still runs in {self.path}"
                raise RemoteLost(message) from exc
            raise CommandFailed(command, exc.status, exc.output) from exc

    def put_file(self, source: Path, target: str) -> None:
        """Write a temporary file, then rename it, so that a file that exists is complete."""
        self.remote.put_file(source, self._beside(target))
        self._rename(target)

    def put_text(self, text: str, target: str) -> None:
        self.remote.put_text(text, self._beside(target))
        self._rename(target)

    def _beside(self, target: str) -> str:
        return f"{target}.{self.epoch}"

    def _rename(self, target: str) -> None:
        self.run(f"mv {shlex.quote(self._beside(target))} {shlex.quote(target)}", timeout_s=60)
