"""What happens to a build, each thing once: from its stream of events or, where there is none, by asking.

A stream that breaks off is resumed after the last event that arrived. Some proxies refuse streams or hold
them back, and an earlier release of the registry has none. Then the build and its log are asked for again
and again.
"""

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from httpx_sse import ServerSentEvent

from cli.answers import ENDED, ApiError, Build, Step, read
from cli.client import (
    NothingFollows,
    RegistryClient,
    StreamLost,
    StreamRefused,
    StreamSilent,
    backoff_s,
    path,
)

# The registry sends at least a comment every 15 seconds, so a stream that is silent for longer is not alive.
SILENCE_S = 25.0
_POLL_S = 1.0
_ATTEMPTS_IN_VAIN = 3


@dataclass(frozen=True)
class Happening:
    """Something that happened to a build. The type and the data are those of the registry's event."""

    type: str
    data: Mapping[str, Any]

    def text(self, name: str) -> str:
        value = self.data.get(name)
        return "" if value is None else str(value)


class Happenings:
    """Everything that happens to one build, from its beginning to its end."""

    def __init__(
        self,
        client: RegistryClient,
        build_id: str,
        *,
        log: bool,
        note: Callable[[str], object],
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """`log`: whether the lines of its log are wanted.

        `note` is told what the reader should know about the connection.
        """
        self._client = client
        self._build_id = build_id
        self._note = note
        self._sleep = sleep
        self._last_id = ""
        self._state = ""
        # What was told of each step last.
        self._steps: dict[str, str] = {}
        self._message: str | None = None
        self._log_offset: int | None = 0 if log else None

    def __iter__(self) -> Iterator[Happening]:
        """Raises ApiError if the registry refuses, or does not answer for the client's patience."""
        reason = yield from self._streamed()
        if reason is not None:
            self._note(f"{reason} So the registry is asked for news every {_POLL_S:.0f} s instead.")
            yield from self._asked()

    def _streamed(self) -> Generator[Happening, None, str | None]:
        """What the stream tells. Returns why the stream cannot be used, or None at the build's end."""
        in_vain = 0
        while True:
            heard, arrived, silent, began = False, False, False, time.monotonic()
            try:
                for event in self._client.events(
                    path("builds", self._build_id, "events"), self._last_id, SILENCE_S
                ):
                    heard = True
                    happening = self._received(event)
                    if happening is None:
                        continue
                    arrived = True
                    yield happening
                    if self._state in ENDED:
                        return None
            except NothingFollows:
                return None
            except StreamRefused as exc:
                return f"The build cannot be followed live: {exc}."
            except StreamLost as exc:
                silent = isinstance(exc, StreamSilent)
            # A stream that was open for long was alive, even if nothing happened to the build.
            lived = arrived or (not silent and time.monotonic() - began > SILENCE_S)
            in_vain = 0 if lived else in_vain + 1
            if (silent and not heard) or in_vain == _ATTEMPTS_IN_VAIN:
                return "The build cannot be followed live: the stream of its events brings nothing."
            # This waits while the registry is away.
            self._client.get(path("builds", self._build_id))
            self._sleep(backoff_s(in_vain))

    def _received(self, event: ServerSentEvent) -> Happening | None:
        try:
            data = json.loads(event.data)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            # The greeting at the beginning of a stream has no data.
            return None
        # An event without an id, such as progress, is not a place to go on from.
        self._last_id = event.id or self._last_id
        happening = Happening(event.event, data)
        step = happening.text("step")
        if happening.type.startswith("step_"):
            self._steps[step] = happening.type
        elif happening.type == "rewound" and step in self._steps:
            told = list(self._steps)
            for name in told[told.index(step) :]:
                del self._steps[name]
        elif happening.type == "state":
            self._state = happening.text("state")
        elif happening.type == "note":
            self._message = happening.text("message")
        return happening

    def _asked(self) -> Iterator[Happening]:
        """The same from the answers to repeated questions, after whatever the stream has told already."""
        _, _, offset = self._last_id.partition(":")
        if self._log_offset is not None and offset.isdecimal():
            self._log_offset = int(offset)
        while True:
            build = read(self._client.get(path("builds", self._build_id)), Build.of)
            yield from self._new_log()
            yield from self._new_steps(build.steps)
            if build.progress is not None and not build.ended:
                yield Happening("progress", vars(build.progress))
            if build.state != self._state:
                self._state = build.state
                yield Happening("state", {"state": build.state})
            if build.ended:
                return
            self._sleep(_POLL_S)

    def _new_log(self) -> Iterator[Happening]:
        while self._log_offset is not None:
            try:
                part = self._client.log(path("builds", self._build_id, "log"), self._log_offset)
            except ApiError as exc:
                if exc.passes:
                    raise
                # The build goes on, whether or not its log can be had.
                self._note(f"The build's log cannot be shown. {exc}")
                self._log_offset = None
                return
            if part.text:
                yield Happening("log", {"text": part.text})
            self._log_offset = part.next_offset
            if part.is_last:
                return

    def _new_steps(self, steps: tuple[Step, ...]) -> Iterator[Happening]:
        types = {"running": "step_started", "succeeded": "step_succeeded", "failed": "step_failed"}
        for step in steps:
            type_ = types.get(step.state)
            if type_ is None:
                self._steps.pop(step.name, None)
            elif self._steps.get(step.name) != type_:
                self._steps[step.name] = type_
                data = {"step": step.name, "output": step.output, "seconds": step.seconds}
                yield Happening(type_, data | {"taken_over_from": step.taken_over_from})
            if step.state == "running" and step.message not in (None, self._message):
                self._message = step.message
                yield Happening("note", {"step": step.name, "message": step.message})
