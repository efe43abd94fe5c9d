"""Copies the checkpoints of a training to the bucket while it runs, and to the instance that goes on with it.

An instance may end at any moment, and a build gets another one then. What the bucket has of the training by
then does not have to be done again. docs/training-machine.md describes the files. A checkpoint that is lost,
late or damaged costs time and nothing else: the training does again what it lacks.
"""

import re
import shlex
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final, Self
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from app.aws import CloudError, CloudNotFound
from app.registry import takeovers
from app.registry.builds.lease import LeaseLost
from app.registry.builds.steps import BuildView
from app.storage import keys
from app.storage.bucket import FileDigest, KeyTaken, digest_of
from worker.errors import HandOver, StepFailed
from worker.machine.folders import BuildFolder
from worker.machine.remote import CommandFailed, Remote, RemoteFault, RemoteLost, RemoteRefused
from worker.machine.workspace import Workspace
from worker.steps.connection import new_connection
from worker.steps.inputs import LIMIT_BYTES
from worker.workbench import Workbench

_NAME: Final = re.compile(r"(?P<part>[a-z0-9-]{1,100})\.(?P<number>\d{8})\.(?P<sha256>[0-9a-f]{64})\.pt")
# A training has one part for each network of its ensemble, of which there are at most 64, and a few more.
_MOST_PARTS: Final = 100
# Copying takes at most a tenth of the time, however large the checkpoints are and however slow the network.
_PAUSE_FOR_EACH_SECOND: Final = 9
_STOPS_WITHIN_S: Final = 2.0

# What the machine or AWS may answer, and what only means that this copy is not made.
_MISSED: Final = (CloudError, KeyTaken, CommandFailed, RemoteFault, RemoteLost, RemoteRefused, OSError)
# The build's step finds out by itself, in its own thread.
_OVER: Final = (LeaseLost, HandOver, StepFailed)


@dataclass(frozen=True)
class Checkpoint:
    """A file of the training. Of one part, the one with the highest number is the newest."""

    name: str
    part: str
    number: int
    sha256: str

    @classmethod
    def of(cls, name: str) -> Self | None:
        found = _NAME.fullmatch(name)
        return None if found is None else cls(name, found["part"], int(found["number"]), found["sha256"])


def newest(names: Iterable[str]) -> list[Checkpoint]:
    """The newest checkpoint of each part. Names of other files are left out."""
    found: dict[str, Checkpoint] = {}
    for name in sorted(names):
        one = Checkpoint.of(name)
        if one is not None and (one.part not in found or one.number > found[one.part].number):
            found[one.part] = one
    return list(found.values())[:_MOST_PARTS]


class CheckpointCopier:
    """Copies new checkpoints to the bucket, in a thread and over connections of its own.

    So neither a slow copy nor a hanging one delays those who follow the job.
    """

    def __init__(self, build: BuildView, work: Workbench, folder: BuildFolder) -> None:
        self._build = build
        self._work = work
        self._folder = folder.checkpoints
        self._every_s = work.settings.checkpoint_copy_every.total_seconds()
        self._stopping = threading.Event()
        self._remote: Remote | None = None
        self._missed = ""
        self._thread = threading.Thread(target=self._copy_regularly, name="checkpoints", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop()

    def _stop(self) -> None:
        """A request to the bucket that hangs is left behind: it can only add what is right."""
        self._stopping.set()
        if (remote := self._remote) is not None:
            remote.close()
        self._thread.join(_STOPS_WITHIN_S)

    def copy_last(self, remote: Remote) -> None:
        """Copy what the training has left at its end, while the instance is still there."""
        self._stop()
        try:
            self._copy(remote)
        except _MISSED as exc:
            self._work.log(f"The last checkpoint was not copied: {type(exc).__name__}: {exc}")

    def _copy_regularly(self) -> None:
        wait_s = self._every_s
        while not self._stopping.wait(wait_s):
            began = time.monotonic()
            try:
                with new_connection(self._build, self._work) as self._remote:
                    self._copy(self._remote)
            except _OVER:
                return
            except Exception as exc:
                # Whatever it is, also a connection that was closed under this thread: the build goes on.
                self._note_missed(exc)
            wait_s = max(self._every_s, _PAUSE_FOR_EACH_SECOND * (time.monotonic() - began))

    def _note_missed(self, error: Exception) -> None:
        """Once for each problem, because the next try may have the same."""
        message = f"{type(error).__name__}: {error}"
        if message != self._missed and not self._stopping.is_set():
            self._missed = message
            # The thread that follows the job notices a lost lease, and a database that is away.
            with suppress(LeaseLost, SQLAlchemyError):
                self._work.log(f"No checkpoint was copied: {message}")

    def _copy(self, remote: Remote) -> None:
        there = newest(remote.names(self._folder))
        if not there:
            return
        kept = _in_bucket(self._build.id, self._work)
        for one in there:
            if one.name not in kept and not self._keep(remote, one):
                continue
            for name in kept:
                old = Checkpoint.of(name)
                if old is not None and old.part == one.part and old.number < one.number:
                    self._work.check()
                    self._work.clouds.bucket.delete(keys.checkpoint_key(self._build.id, name))

    def _keep(self, remote: Remote, one: Checkpoint) -> bool:
        """Put one into the bucket, through a file, so that its size does not count as memory.

        Returns False if the training has deleted it meanwhile, because it has written the next one.
        """
        with NamedTemporaryFile(dir=self._work.scratch, prefix="checkpoint-") as file:
            local = Path(file.name)
            try:
                remote.get_file(f"{self._folder}/{one.name}", local, limit_bytes=LIMIT_BYTES)
            except FileNotFoundError:
                return False
            content = digest_of(local)
            if content.sha256 != one.sha256:
                message = f"{one.name} arrived with the sha256 {content.sha256}"
                raise RemoteFault(message)
            self._put(one, local, content)
            return True

    def _put(self, one: Checkpoint, local: Path, content: FileDigest) -> None:
        # The key has the digest of the content, so no worker writes over what another one has put there.
        self._work.check()
        self._work.clouds.bucket.put_once(
            keys.checkpoint_key(self._build.id, one.name),
            local,
            content,
            content_type="application/octet-stream",
            build_id=str(self._build.id),
        )


def restore(build: BuildView, work: Workbench, space: Workspace, folder: BuildFolder) -> None:
    """Put the newest checkpoints that the bucket has onto the instance. Raises CloudError, RemoteLost.

    Those of the build itself, or else those that a build has left which this one repeats.
    """
    with work.transaction() as session:
        owners = [build.id, *takeovers.ancestor_ids(session, build.id)]
    for owner in owners:
        restored = [
            one for one in newest(_in_bucket(owner, work)) if _restore(owner, work, space, folder, one)
        ]
        if restored:
            names = ", ".join(f"{one.part} ({one.number})" for one in restored)
            work.note(f"The training goes on from the checkpoints of an earlier instance: {names}")
            return


def _restore(owner: UUID, work: Workbench, space: Workspace, folder: BuildFolder, one: Checkpoint) -> bool:
    with NamedTemporaryFile(dir=work.scratch, prefix="checkpoint-") as file:
        local = Path(file.name)
        try:
            found = work.clouds.bucket.download(keys.checkpoint_key(owner, one.name), local)
        except CloudNotFound:
            # A worker that has the build no more may have deleted it after it had put a newer one.
            work.log(f"The checkpoint {one.name} is not in the bucket any more.")
            return False
        if found.content.sha256 != one.sha256:
            work.log(f"The checkpoint {one.name} is damaged in the bucket. It is not used.")
            return False
        work.check()
        space.run(f"mkdir -p {shlex.quote(folder.checkpoints)}", timeout_s=60)
        space.put_file(local, f"{folder.checkpoints}/{one.name}")
        return True


def _in_bucket(owner: UUID, work: Workbench) -> set[str]:
    folder = keys.checkpoints_folder(owner)
    return {key.removeprefix(folder) for key, _ in work.clouds.bucket.list(folder)}
