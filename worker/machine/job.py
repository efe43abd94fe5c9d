"""A job on the instance. It is started once, runs detached, and is followed to its end.

docs/training-machine.md describes the files that a job reads and writes.
"""

import json
import math
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from app.failures import FailureCode
from worker.machine.remote import CommandFailed, Remote, RemoteFault
from worker.machine.workspace import Workspace

_BLOCK = 4 << 20
# A build's log may grow to this size. Of what comes later, only the last part is kept.
LOG_LIMIT_BYTES = 64 << 20
_TAIL_BYTES = 64 << 10

# flock ensures that only one process runs, even if several workers start the job. A free lock means that the
# job is dead. The command has a line of its own, because a shell that waits for it after `&&` would keep our
# channel open until the job ends.
_START = """\
cd {job} || exit 1
setsid nohup flock --nonblock lock sh run.sh >/dev/null 2>&1 </dev/null 9>&- &
"""
# When the machine is shut down, all processes get SIGTERM. The job then ends by itself, and this shell waits
# to tell how it ended. `started` holds the machine's boot id. A job that has this file is not started again,
# because what it left half-written can be neither trusted nor overwritten.
_RUN = """\
[ -e exit ] || [ -e started ] && exit 0
trap : TERM
cat /proc/sys/kernel/random/boot_id >started.partial && mv started.partial started || exit 1
cd {repository} || exit 1
{python} -m training {command} --job {job}/job.json >>{job}/log 2>&1 </dev/null
echo $? >{job}/exit.partial && mv {job}/exit.partial {job}/exit
"""
# A shell's exit status for a program that a signal ended is this and the signal's number.
_ENDED_BY_SIGNAL = 128
# Exits with 0 when no process of the job is alive and none has written an exit status.
_DEAD = "cd {job} && flock --nonblock lock test ! -e exit"
# Not with cmp, which tells files apart by their sizes first: in /proc, each size is 0.
_REBOOTED = """\
cd {job} && [ -e started ] && [ "$(cat started)" != "$(cat /proc/sys/kernel/random/boot_id)" ]
"""


@dataclass(frozen=True)
class Progress:
    """How far the running phase is. `percent` is in [0, 100]; `eta_seconds` is None when unknown."""

    phase: str
    percent: float
    eta_seconds: float | None


class JobDied(Exception):
    """No process of the job is alive, and none has written an exit status. `code` says why."""

    def __init__(self, code: FailureCode) -> None:
        super().__init__(code.meaning)
        self.code = code


class JobSilent(Exception):
    """The job is alive, but has written neither log lines nor progress for too long."""


@dataclass(frozen=True)
class Job:
    """One run of `python -m training <command>`, in a folder of its own."""

    workspace: Workspace
    folder: str
    command: str

    @property
    def remote(self) -> Remote:
        return self.workspace.remote

    def was_started(self) -> bool:
        return any(self.remote.read(f"{self.folder}/{name}", limit=1) for name in ("exit", "started", "log"))

    def start(self, order: dict[str, Any], repository: str, python: str) -> None:
        """Start the job, unless it has been started. Raises RemoteLost, CommandFailed, LeaseLost."""
        if self.was_started():
            return
        quoted = {
            "job": shlex.quote(self.folder),
            "repository": shlex.quote(repository),
            "python": shlex.quote(python),
            "command": self.command,
        }
        self.workspace.run(f"mkdir -p {quoted['job']}", timeout_s=60)
        self.workspace.put_text(json.dumps(order, indent=2), f"{self.folder}/job.json")
        self.workspace.put_text(_RUN.format(**quoted), f"{self.folder}/run.sh")
        self.workspace.run(_START.format(**quoted), timeout_s=60)

    def require_alive(self) -> None:
        """Raises JobDied when no process of the job is alive and none has written an exit status."""
        job = shlex.quote(self.folder)
        try:
            self.remote.run(_DEAD.format(job=job), timeout_s=60)
        except CommandFailed:
            return
        if self.rebooted():
            raise JobDied(FailureCode.REBOOTED)
        try:
            self.workspace.run("true", timeout_s=60)
        except RemoteFault as exc:
            # Where nothing can be written, a job cannot leave its exit status either.
            raise JobDied(FailureCode.INSTANCE_FAULT) from exc
        raise JobDied(FailureCode.KILLED)

    def rebooted(self) -> bool:
        """Whether the instance has rebooted since the job was started."""
        try:
            self.remote.run(_REBOOTED.format(job=shlex.quote(self.folder)), timeout_s=60)
        except CommandFailed:
            return False
        return True

    def exit_status(self) -> int | None:
        """None while the job has not ended."""
        content = self.remote.read(f"{self.folder}/exit", limit=32)
        if content is None:
            return None
        text = content.decode("ascii", "replace").strip()
        return int(text) if text.isdecimal() else 1

    def result(self) -> bytes | None:
        """The content of `result.json`, up to a sensible size."""
        return self.remote.read(f"{self.folder}/result.json", limit=_BLOCK)

    def log_from(self, offset: int, *, ended: bool) -> bytes:
        """A piece of the log: whole lines while the job runs, and everything that is left once it has ended.

        A progress bar ends its lines with a carriage return. A line that is longer than a piece is cut.
        """
        found = self.remote.read(f"{self.folder}/log", offset, _BLOCK) or b""
        if len(found) == _BLOCK:
            return _whole_characters(found)
        return found if ended else found[: max(found.rfind(b"\n"), found.rfind(b"\r")) + 1]

    def log_size(self) -> int:
        return self.remote.size(f"{self.folder}/log") or 0

    def ends_line(self, offset: int) -> bool:
        """Whether the log's first `offset` bytes end with a line feed."""
        return offset == 0 or self.remote.read(f"{self.folder}/log", offset - 1, 1) == b"\n"

    def skip_to_tail(self, offset: int) -> int:
        """The offset at which the last part of the log begins, but at least `offset`."""
        return max(offset, self.log_size() - _TAIL_BYTES)


@dataclass
class Follower:
    """Follows a running job until it ends, and passes on its log and progress."""

    job: Job
    sleep: Callable[[float], None]
    log: Callable[[str, int], None]
    """Called with text of the log and the number of bytes of the log that have been read so far."""
    progress: Callable[[Progress], None]
    note: Callable[[str], None]
    silent_after_s: float
    poll_s: float = 1.0
    # After how many polls without news we check whether the job is still alive.
    quiet_polls: int = 15

    _log_bytes: int = field(default=0, init=False)
    _log_size: int = field(default=0, init=False)
    _progress_bytes: int = field(default=0, init=False)

    def follow(self, log_bytes: int) -> tuple[int, int]:
        """Returns the job's exit status, and how many bytes of its log were read.

        Raises JobDied and JobSilent. The log's last words are read first: they may tell the reason.
        """
        self._log_bytes, self._log_size, self._progress_bytes = log_bytes, 0, 0
        try:
            status = self._await_exit()
        except (JobDied, JobSilent):
            self._read_rest()
            raise
        self._read_rest()
        return status, self._log_bytes

    def _await_exit(self) -> int:
        quiet, last_news = 0, time.monotonic()
        while (status := self.job.exit_status()) is None:
            if self._take_over_news():
                quiet, last_news = 0, time.monotonic()
            elif time.monotonic() - last_news > self.silent_after_s:
                raise JobSilent
            else:
                quiet += 1
            if quiet >= self.quiet_polls:
                quiet = 0
                self.job.require_alive()
            self.sleep(self.poll_s)
        # A machine that reboots ends its processes one by one: the shell may outlive the job for a moment.
        if status > _ENDED_BY_SIGNAL and self.job.rebooted():
            raise JobDied(FailureCode.REBOOTED)
        return status

    def _take_over_news(self) -> bool:
        """Show what is new. Returns whether the job has written anything, shown or not."""
        seen, self._log_size = self._log_size, self.job.log_size()
        if self._log_bytes < LOG_LIMIT_BYTES:
            self._show(self.job.log_from(self._log_bytes, ended=False))
        return self._show_progress() or self._log_size != seen

    def _read_rest(self) -> None:
        """Show what is left when the job writes no more; of a log that is too long, only the last part."""
        while True:
            if self._log_bytes >= LOG_LIMIT_BYTES:
                self._log_bytes = self.job.skip_to_tail(self._log_bytes)
            read = self.job.log_from(self._log_bytes, ended=True)
            if not read:
                break
            self._show(read)
        if not self.job.ends_line(self._log_bytes):
            # The next step's first line must not be glued to the job's last one.
            self.log("\n", self._log_bytes)
        self._show_progress()

    def _show(self, read: bytes) -> None:
        if not read:
            return
        shown_before = self._log_bytes
        self._log_bytes += len(read)
        self.log(read.decode(errors="replace"), self._log_bytes)
        if shown_before < LOG_LIMIT_BYTES <= self._log_bytes:
            limit = f"{LOG_LIMIT_BYTES >> 20} MiB"
            self.note(f"the job's log is longer than {limit}: only its end will follow")

    def _show_progress(self) -> bool:
        """Show the newest line of `progress.jsonl`. Returns whether there was a new one."""
        path = f"{self.job.folder}/progress.jsonl"
        read = self.job.remote.read(path, self._progress_bytes, _BLOCK) or b""
        whole = read if len(read) == _BLOCK else read[: read.rfind(b"\n") + 1]
        self._progress_bytes += len(whole)
        for line in reversed(whole.splitlines()[-20:]):
            found = progress_of(line)
            if found is not None:
                self.progress(found)
                break
        return bool(whole)


def progress_of(line: bytes) -> Progress | None:
    """None for an unusable line. Progress is only for display, so such a line must not fail the build."""
    try:
        fields = json.loads(line)
        phase, done, total = str(fields["phase"]), float(fields["done"]), float(fields["total"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if not (math.isfinite(done) and math.isfinite(total) and total > 0):
        return None
    percent = round(100 * min(1.0, max(0.0, done / total)), 1)
    return Progress(phase[:100], percent, _eta(fields.get("eta_seconds")))


def _eta(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _whole_characters(text: bytes) -> bytes:
    """The bytes without an incomplete character at their end."""
    end = len(text)
    while end > len(text) - 4 and text[end - 1] & 0xC0 == 0x80:
        end -= 1
    if text[end - 1] >= 0xC0:
        return text[: end - 1]
    return text
