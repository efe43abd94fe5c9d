"""An API that answers what a test says, and the command that calls it."""

import functools
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from cli import main
from cli.client import RegistryClient

NASTY = "[/x] [bold]\\[ \x1b]0;title\x07\x1b[2J\u202e"


class Api:
    """The last answer of a path stays; each earlier one is given once."""

    def __init__(self) -> None:
        self.answers: dict[str, list[httpx.Response | Exception]] = {}
        self.requests: list[httpx.Request] = []

    def answer(self, call: str, *answers: Any) -> None:
        """Each is a response, an exception, or the JSON of an answer with status 200."""
        self.answers[call] = [
            each if isinstance(each, httpx.Response | Exception) else httpx.Response(200, json=each)
            for each in answers
        ]

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path.endswith("/events") and f"GET {request.url.path}" not in self.answers:
            # As a registry of an earlier release, which has no streams.
            return httpx.Response(404, json={"title": "There is no such path", "detail": "See /docs."})
        answers = self.answers[f"{request.method} {request.url.path}"]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    made = Api()
    client = functools.partial(
        RegistryClient, transport=httpx.MockTransport(made.handle), sleep=lambda _: None
    )
    monkeypatch.setattr("cli.shell.RegistryClient", client)
    monkeypatch.setattr("cli.builds.happenings._POLL_S", 0)
    monkeypatch.setattr("cli.runs._POLL_S", 0)
    monkeypatch.setattr("cli.notifications._POLL_S", 0)
    return made


def run(*arguments: str, **variables: str) -> Result:
    clean = {"REGISTRY_URL": None, "REGISTRY_TOKEN": None, "REGISTRY_BRANCH": None, "COLUMNS": "200"}
    return CliRunner().invoke(main.app, arguments, env={**clean, **variables})
