"""Checkpoints: the states of the parts of a run, from which a run that was ended goes on.

A part is a piece of work that advances in steps, such as the training of one network. Its state is everything
that its next steps depend on, so a run that goes on gives the same bytes as one that was never ended:

    with checkpoints.part("network-1", dataset.sha256) as part:
        state = part.load()
        for step in ...:
            ...
            if part.due():
                part.save({"weights": ..., "step": step})
        part.save({"weights": ..., "step": step})

A checkpoint is a file `<part>.<number>.<sha256>.pt` whose name has the digest of its content. Of a part's
files, the one with the highest number is the newest.
"""

import hashlib
import io
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, Self

import torch

from training.distributed import ALONE, Group
from training.files import digests_of_folder, output_folder, sha256_of_files, written_whole
from training.inputs.hardware import kind_of_machine
from training.interruption import Interrupted, asked, deferred

# Tensors, numbers, texts and truth values, also in lists and dicts: what torch loads without running code.
State = Mapping[str, Any]

_NAME: Final = re.compile(r"(?P<part>[a-z0-9-]+)\.(?P<number>\d{8})\.(?P<sha256>[0-9a-f]{64})\.pt")
# Several processes must agree on each checkpoint. To ask them all in each step would cost time.
_STEPS_BETWEEN_QUESTIONS: Final = 16


class _Wanted(IntEnum):
    """What a part does after a step. Among several processes, the highest wish counts."""

    GO_ON = 0
    SAVE = 1
    SAVE_AND_STOP = 2


@dataclass(frozen=True)
class _Kept:
    """A file in the folder."""

    path: Path
    part: str
    number: int
    sha256: str


class Checkpoints:
    """The checkpoints of a run in a folder. Without a folder nothing is kept, and nothing is found."""

    def __init__(self, folder: Path | None, interval_s: float, run: str, say: Callable[[str], None]) -> None:
        """`run` is a digest of everything that the whole run depends on: see `identity_of_run`.

        `say` is told which checkpoints are ignored, or could not be written.
        """
        self._folder = folder
        self._interval_s = interval_s
        self._run = run
        self._say = say

    @property
    def are_kept(self) -> bool:
        return self._folder is not None

    @contextmanager
    def opened(self) -> Iterator[Self]:
        """Make the folder and keep other runs out of it. Raises `invalid_job` if another run is using it."""
        with ExitStack() as stack:
            if self._folder is not None:
                stack.enter_context(output_folder(self._folder))
            yield self

    def part(self, name: str, *depends_on: str, group: Group = ALONE) -> "Part":
        """A part by its name, which consists of small letters, digits and hyphens.

        `depends_on` are digests of what this part depends on besides the run, such as its data. `group` are
        the processes that do the part together: each of them calls the same functions in the same order.
        """
        identity = hashlib.sha256("\n".join([self._run, name, *depends_on]).encode()).hexdigest()
        return Part(self._folder, name, identity, self._interval_s, self._say, group)

    def clear(self) -> None:
        """Delete all checkpoints, because the run has succeeded."""
        for kept in _kept(self._folder):
            kept.path.unlink(missing_ok=True)


NO_CHECKPOINTS: Final = Checkpoints(None, float("inf"), "", print)


class Part:
    """The checkpoints of one part. It must be entered before it is used."""

    def __init__(
        self,
        folder: Path | None,
        name: str,
        identity: str,
        interval_s: float,
        say: Callable[[str], None],
        group: Group,
    ) -> None:
        self._folder = folder if group.leads else None
        self._name = name
        self._identity = identity
        self._interval_s = interval_s
        self._say = say
        self._group = group
        self._stack = ExitStack()
        self._steps = 0
        self._saved_at = time.monotonic()
        self._wanted = _Wanted.GO_ON

    def __enter__(self) -> Self:
        self._stack.enter_context(deferred())
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def load(self) -> State | None:
        """The newest state that is whole and belongs to this run, on the CPU. Otherwise None.

        Of several processes, each gets what is common to all and what it passed as its own.
        """
        if self._group.size == 1 and asked():
            raise Interrupted
        (found,) = self._group.share((self._newest(),) if self._group.leads else None)
        return None if found is None else {**found["state"], **found["own"][self._group.rank]}

    def due(self) -> bool:
        """Whether to save now: the interval has passed, or the run was asked to end. Call it in each step."""
        self._steps += 1
        if self._group.size > 1 and self._steps % _STEPS_BETWEEN_QUESTIONS:
            return False
        wanted = _Wanted.GO_ON
        if asked():
            wanted = _Wanted.SAVE_AND_STOP
        elif self._folder is not None and time.monotonic() - self._saved_at >= self._interval_s:
            wanted = _Wanted.SAVE
        self._wanted = _Wanted(self._group.highest(wanted))
        return self._wanted is not _Wanted.GO_ON

    def save(self, state: State, own: State | None = None) -> None:
        """Keep the state. Raises `Interrupted` if the run was asked to end.

        Of several processes only the first one writes. `own` is what differs between them, and the leader's
        `state` counts for all.
        """
        of_all = self._group.gather(own or {})
        if self._folder is not None:
            self._write(self._folder, {"identity": self._identity, "state": dict(state), "own": of_all})
        self._saved_at = time.monotonic()
        if self._wanted is _Wanted.SAVE_AND_STOP:
            raise Interrupted

    def _newest(self) -> dict[str, Any] | None:
        for kept in sorted(self._kept(), key=lambda one: one.number, reverse=True):
            problem = "it is damaged"
            try:
                content = kept.path.read_bytes()
                if hashlib.sha256(content).hexdigest() == kept.sha256:
                    found: dict[str, Any] = torch.load(
                        io.BytesIO(content), map_location="cpu", weights_only=True
                    )
                    if found["identity"] == self._identity and len(found["own"]) == self._group.size:
                        return found
                    problem = "it belongs to a run with other inputs, code or hardware"
            except Exception as exc:
                # Whatever is wrong with it, the work can be done again.
                problem = f"it cannot be read ({exc})"
            self._say(f"checkpoint {kept.path.name} is ignored, because {problem}")
        return None

    def _write(self, folder: Path, content: dict[str, Any]) -> None:
        earlier = self._kept()
        number = max((one.number for one in earlier), default=0) + 1
        try:
            # First in memory, because torch cannot cope with a file that cannot be written to its end.
            buffer = io.BytesIO()
            torch.save(content, buffer)
            view = buffer.getbuffer()
            path = folder / f"{self._name}.{number:08}.{hashlib.sha256(view).hexdigest()}.pt"
            with written_whole(path) as beside, beside.open("wb") as file:
                file.write(view)
        except (OSError, RuntimeError, MemoryError) as exc:
            self._say(f"the checkpoint of {self._name} cannot be written: {exc}")
            return
        for one in earlier:
            one.path.unlink(missing_ok=True)

    def _kept(self) -> list[_Kept]:
        return [one for one in _kept(self._folder) if one.part == self._name]


def identity_of_run(values: Mapping[str, Any], device: str, group: Group) -> str:
    """A digest of configuration, code, libraries and kind of machine.

    Only between runs with the same digest can a checkpoint be handed on. `values` are those of the
    configuration that can shape a result.
    """
    code = sha256_of_files(digests_of_folder(Path(__file__).parent))
    parts = [repr(sorted(values.items())), code, *kind_of_machine(torch.device(device))]
    parts += [str(torch.get_num_threads()), str(group.size)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _kept(folder: Path | None) -> list[_Kept]:
    if folder is None or not folder.is_dir():
        return []
    return [
        _Kept(path, named["part"], int(named["number"]), named["sha256"])
        for path in sorted(folder.iterdir())
        if (named := _NAME.fullmatch(path.name)) is not None and path.is_file()
    ]
