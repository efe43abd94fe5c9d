"""Following a build: what is shown once, whatever the connection does, and how the command line goes on."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from rich.console import Console

from cli.answers import Build
from cli.builds.follow import Interrupted, LostContact, follow, follow_to_end
from cli.client import RegistryClient

Answer = httpx.Response | Exception
Scripted = Answer | Callable[[httpx.Request], httpx.Response]


def build(state: str = "running", **changes: Any) -> dict[str, Any]:
    return {"id": "7", "prefix": "0.0.2-aaaaaaa", "state": state, "steps": [], "failure": None, **changes}


def event(kind: str, id_: str = "", **data: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n" + (f"id: {id_}\n" if id_ else "") + "\n"


def stream(*events: str, lost: Exception | None = None) -> httpx.Response:
    class Body(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b"retry: 2000\n\n"
            for each in events:
                yield each.encode()
            if lost is not None:
                raise lost

    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Body())


class Registry:
    """Answers each path with its answers one after the other; the last one stays. Knows the whole log."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Scripted]] = {"/builds/7": [ok(build())]}
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []
        self.log = b""

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path == "/builds/7/log":
            offset = int(request.url.params["offset"])
            sizes = {"X-Log-Size": str(len(self.log)), "X-Log-Next-Offset": str(len(self.log))}
            return httpx.Response(200, content=self.log[offset:], headers=sizes)
        answers = self.answers[request.url.path]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else answer(request)

    def client(self) -> RegistryClient:
        return RegistryClient("http://registry", transport=httpx.MockTransport(self.handle), sleep=self.wait)

    def wait(self, seconds: float) -> None:
        assert len(self.waits) < 1000
        self.waits.append(seconds)

    def follow(self, *, log: bool = True, terminal: bool = False) -> str:
        shown = io.StringIO()
        console = Console(file=shown, force_terminal=terminal, width=200)
        follow(self.client(), "7", console, log=log, sleep=self.wait)
        return shown.getvalue()

    def last_ids(self) -> list[str | None]:
        streams = [request for request in self.requests if request.url.path.endswith("/events")]
        return [request.headers.get("Last-Event-ID") for request in streams]


def ok(answer: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json=answer)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    return Registry()


STARTED = event("step_started", "2:0", step="train", attempt=1)
DONE = event("step_succeeded", "3:9", step="train", output={"counts": {"rows": 1200}}, seconds=3.25)
END = event("state", "4:9", state="succeeded")


def test_steps_notes_progress_and_whole_lines_are_shown(registry: Registry) -> None:
    registry.answers["/builds/7/events"] = [
        stream(
            event("state", "1:0", state="running"),
            STARTED,
            event("log", "2:4", text="half"),
            event("note", "3:4", step="train", message="S3 does not answer. Waiting."),
            event("log", "3:9", text=" line\r\nrest"),
            event("progress", phase="epochs", percent=50, eta_seconds=7),
            event("progress", phase="nonsense"),
            event("something_new", "4:9", message="from a newer registry"),
            DONE,
            END,
        )
    ]
    assert registry.follow().splitlines() == [
        "  The build is running.",
        "  S3 does not answer. Waiting.",
        "    half line",
        "  train: epochs        50%",
        "  from a newer registry",
        "  ✓ train                   3.2 s  rows 1,200",
        "    rest",
    ]


def test_a_stream_that_breaks_off_is_resumed_after_what_arrived(registry: Registry) -> None:
    registry.answers["/builds/7/events"] = [
        # The last event is cut, and progress has no id.
        stream(STARTED, event("progress", phase="epochs", percent=1), DONE[:40], lost=httpx.ReadError("cut")),
        httpx.ConnectError("refused"),
        httpx.Response(503),
        stream(DONE, lost=httpx.RemoteProtocolError("cut")),
        httpx.Response(204),
    ]
    # Each lost stream is followed by a question, so that a registry that is away is waited for.
    registry.answers["/builds/7"] = [httpx.ConnectError("refused"), httpx.Response(502), ok(build())]
    shown = registry.follow()
    assert shown.count("✓ train") == 1
    assert registry.last_ids()[:2] == [None, "2:0"]


def test_a_stream_that_brings_nothing_is_replaced_by_questions(registry: Registry) -> None:
    registry.log = "größer\nsecond\n".encode()
    done = {"name": "train", "state": "succeeded", "output": {"name": "by asking"}}
    failed = {"name": "publish", "state": "failed"}
    registry.answers["/builds/7/events"] = [
        stream(STARTED, event("log", "2:9", text="größer\n"), lost=httpx.ReadError("cut")),
        lambda _: stream(lost=httpx.ReadError("cut")),
    ]
    running = ok(build(steps=[{"name": "train", "state": "running", "message": "It waits."}]))
    asked = [running, running, running, running, ok(build("failed", steps=[done, failed]))]
    registry.answers["/builds/7"] = list(asked)
    lines = registry.follow().splitlines()
    assert [line.strip() for line in lines if line.startswith("    ")] == ["größer", "second"]
    assert "the stream of its events brings nothing" in "".join(lines)
    assert sum("by asking" in line for line in lines) == 1
    assert sum("✗ publish" in line for line in lines) == 1
    assert sum("It waits." in line for line in lines) == 1


@pytest.mark.parametrize(
    ("refusal", "says"),
    [
        (httpx.Response(404), "404"),
        (httpx.Response(405), "405"),
        (httpx.Response(406), "406"),
        (httpx.Response(302, headers={"Location": "https://login.example.org"}), "302"),
        (httpx.Response(200, html="<h1>"), "not a stream"),
        # Nothing at all arrived, although the registry greets every reader: a proxy holds it back.
        (httpx.ReadTimeout("nothing"), "brings nothing"),
    ],
)
def test_without_a_stream_the_build_is_asked_for(refusal: Answer, says: str, registry: Registry) -> None:
    registry.log = b"a line\n"
    registry.answers["/builds/7/events"] = [refusal]
    registry.answers["/builds/7"] = [ok(build()), ok(build()), ok(build("succeeded"))]
    shown = registry.follow()
    assert says in shown
    assert shown.count("a line") == 1
    assert registry.last_ids() == [None]


def test_the_log_is_not_asked_for_unless_it_is_wanted(registry: Registry) -> None:
    registry.answers["/builds/7/events"] = [httpx.Response(404)]
    registry.answers["/builds/7"] = [ok(build("succeeded"))]
    registry.follow(log=False)
    assert not any(request.url.path.endswith("/log") for request in registry.requests)


def test_a_registry_that_stays_away_is_given_up_with_the_command_to_go_on(registry: Registry) -> None:
    registry.answers["/builds/7/events"] = [stream(STARTED, lost=httpx.ReadError("cut"))]
    registry.answers["/builds/7"] = [httpx.ConnectError("refused")]
    with pytest.raises(LostContact, match=r"not answered for 300 s.*tariff-registry follow 7"):
        registry.follow()
    assert 200 < sum(registry.waits) <= 300


def test_ctrl_c_says_that_the_build_goes_on(registry: Registry) -> None:
    def interrupt(_: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    registry.answers["/builds/7/events"] = [interrupt]
    console = Console(file=io.StringIO())
    with pytest.raises(Interrupted, match=r"goes on.*follow 7.*cancel 7"):
        follow_to_end(registry.client(), Build.of(build()), console)


def test_a_terminal_gets_a_bar_and_the_same_lines(registry: Registry) -> None:
    progress = event("progress", phase="epochs", percent=50, eta_seconds=7)
    log = event("log", "2:9", text="[red]\x1b[2J\u202ea line\n")
    registry.answers["/builds/7/events"] = [stream(STARTED, progress, log, DONE, END)]
    shown = registry.follow(terminal=True)
    assert "[red]\\x1b[2J\\u202ea line" in shown
    assert "✓" in shown
    assert "rows 1,200" in shown
