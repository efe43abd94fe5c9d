"""GET /builds/{id}/events: everything that happens to a build, once and in order, and from any place on."""

import json
import threading
import time
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi.testclient import TestClient

from app.registry.builds import ending, log, steps
from app.settings import Settings
from app.words import BuildState, StepName
from tests.integration.app.registry import Registry
from tests.integration.app.serving import free_port, served

LINES = "".join(f"{number}: größer 🚢\r\n" for number in range(20_000))


def parse(stream: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Each event: its id, its type and its data."""
    found = []
    for block in stream.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
    return found


def text_of(events: list[tuple[str, str, dict[str, Any]]]) -> str:
    return "".join(data["text"] for _, type_, data in events if type_ == "log")


@pytest.fixture
def ended(registry: Registry) -> UUID:
    """A build that has done a step, written a long log between two steps, and failed."""
    build_id = registry.queue()
    lease = registry.take(build_id)
    with registry.database.transaction() as session:
        steps.start(session, lease, StepName.FIND_IMAGE)
        steps.finish(session, lease, StepName.FIND_IMAGE, {"name": "an image", "secret": "hidden"})
    with registry.database.transaction() as session:
        log.append(session, lease, LINES)
    with registry.database.transaction() as session:
        steps.start(session, lease, StepName.TRAIN)
        steps.fail(session, lease, steps.Failure(StepName.TRAIN, "killed", "It was killed."))
    with registry.database.transaction() as session:
        ending.end(session, lease, BuildState.FAILED)
    return build_id


def test_an_ended_build_is_told_in_order_and_ends_with_its_state(api: TestClient, ended: UUID) -> None:
    answer = api.get(f"/builds/{ended}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = parse(answer.text)
    types = [type_ for _, type_, _ in events if type_ != "log"]
    assert types == [
        "state", "state", "step_started", "step_succeeded", "step_started", "step_failed", "state",
    ]  # fmt: skip
    assert events[-1][2]["state"] == "failed"
    assert text_of(events) == LINES
    first_log = next(place for place, event in enumerate(events) if event[1] == "log")
    assert [type_ for _, type_, _ in events[:first_log]][-1] == "step_succeeded"
    [done] = [data for _, type_, data in events if type_ == "step_succeeded"]
    assert done["output"] == {"name": "an image"}


def test_every_id_resumes_exactly(api: TestClient, ended: UUID) -> None:
    events = parse(api.get(f"/builds/{ended}/events").text)
    for place in range(len(events) - 1):
        rest = parse(api.get(f"/builds/{ended}/events", headers={"Last-Event-ID": events[place][0]}).text)
        assert text_of(events[: place + 1]) + text_of(rest) == LINES
        assert [e for e in rest if e[1] != "log"] == [e for e in events[place + 1 :] if e[1] != "log"]
    over = api.get(f"/builds/{ended}/events", headers={"Last-Event-ID": events[-1][0]})
    assert (over.status_code, over.content) == (204, b"")


@pytest.mark.parametrize("given", ["x", "1", "-1:0", "1:2:3", f"0:{10**17}", "9" * 40 + ":0"])
def test_an_id_that_the_build_never_had_is_refused(api: TestClient, ended: UUID, given: str) -> None:
    answer = api.get(f"/builds/{ended}/events", headers={"Last-Event-ID": given})
    assert answer.status_code == 422
    assert "Last-Event-ID" in answer.json()["detail"]


def test_a_build_that_does_not_exist_has_no_events(api: TestClient) -> None:
    assert api.get(f"/builds/{UUID(int=7)}/events").status_code == 404


def test_the_head_of_a_stream_does_not_wait_for_its_end(api: TestClient, registry: Registry) -> None:
    answer = api.head(f"/builds/{registry.queue()}/events")
    assert (answer.status_code, answer.content) == (200, b"")


def test_readers_resume_across_a_restart_and_lose_nothing(registry: Registry, settings: Settings) -> None:
    build_id = registry.queue()
    lease = registry.take(build_id)
    port = free_port()
    received = [""] * 5

    def follow(place: int) -> None:
        last = "0:0"
        while True:
            stream = ""
            try:
                url = f"http://127.0.0.1:{port}/builds/{build_id}/events"
                with httpx.stream("GET", url, headers={"Last-Event-ID": last}, timeout=30) as answer:
                    for text in answer.iter_text():
                        stream += text
            except httpx.TransportError:
                time.sleep(0.05)
            events = parse(stream[: stream.rfind("\n\n") + 2])
            received[place] += text_of(events)
            last = next((id_ for id_, _, _ in reversed(events) if id_), last)
            if any(type_ == "state" and data["state"] == "failed" for _, type_, data in events):
                return

    readers = [threading.Thread(target=follow, args=(place,)) for place in range(len(received))]
    written = ""

    def write(count: int) -> None:
        nonlocal written
        for _ in range(count):
            line = f"line {written.count(chr(10))}\n"
            with registry.database.transaction() as session:
                log.append(session, lease, line)
            written += line

    with served(settings, port):
        for reader in readers:
            reader.start()
        write(50)
    write(20)
    with served(settings, port):
        write(50)
        with registry.database.transaction() as session:
            steps.fail(session, lease, steps.Failure(StepName.TRAIN, "killed", "It was killed."))
            ending.end(session, lease, BuildState.FAILED)
        for reader in readers:
            reader.join(30)
    assert received == [written] * len(received)
