"""How the command line calls the API: retries, and answers that are not the API's."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from cli.answers import ApiError
from cli.client import RegistryClient, path

Answer = httpx.Response | Exception


class Script:
    """Answers the calls one after the other. The last answer stays."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.calls: list[httpx.Request] = []
        self.waits: list[float] = []
        self.notes: list[str] = []

    def client(self, patience_s: float = 60.0) -> RegistryClient:
        return RegistryClient(
            "https://registry.example.org/api",
            "s3cret",
            note=self.notes.append,
            sleep=self.waits.append,
            transport=httpx.MockTransport(self._answer),
            patience_s=patience_s,
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def ok() -> httpx.Response:
    return httpx.Response(200, json={"fine": True})


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_a_temporary_error_is_tried_again(status: int) -> None:
    script = Script(httpx.Response(status), httpx.Response(status), ok())
    assert script.client().get("/builds") == {"fine": True}
    assert len(script.waits) == 2
    assert len(script.notes) == 1
    assert str(status) in script.notes[0]


@pytest.mark.parametrize(
    "error", [httpx.ReadTimeout("timed out"), httpx.RemoteProtocolError("hung up"), httpx.ReadError("reset")]
)
def test_a_connection_that_breaks_is_tried_again_once_the_registry_was_reached(error: Exception) -> None:
    script = Script(ok(), error, error, error, ok())
    client = script.client()
    client.get("/builds")
    assert client.get("/builds") == {"fine": True}
    assert len(script.calls) == 5


def test_an_address_that_never_answers_is_given_up_soon() -> None:
    script = Script(httpx.ConnectError("refused"))
    with pytest.raises(ApiError, match=r"does not answer.*REGISTRY_URL"):
        script.client().get("/builds")
    assert sum(script.waits) <= 3


def test_the_registry_is_given_up_when_the_patience_ends() -> None:
    script = Script(httpx.Response(502))
    with pytest.raises(ApiError, match="502"):
        script.client(patience_s=60).get("/builds")
    assert 30 < sum(script.waits) <= 60


@pytest.mark.parametrize(
    "after_of",
    [lambda: "7", lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=8), usegmt=True)],
    ids=["seconds", "date"],
)
def test_the_wait_is_what_the_answer_asks_for(after_of: Callable[[], str]) -> None:
    script = Script(httpx.Response(503, headers={"Retry-After": after_of()}), ok())
    script.client().get("/builds")
    assert 5 <= script.waits[0] <= 9


def test_a_wait_that_is_longer_than_the_patience_is_not_begun() -> None:
    script = Script(httpx.Response(503, headers={"Retry-After": "3600"}), ok())
    with pytest.raises(ApiError, match="503"):
        script.client().get("/builds")
    assert script.waits == []


def test_a_retry_after_that_cannot_be_read_is_ignored() -> None:
    script = Script(httpx.Response(503, headers={"Retry-After": "soon"}), ok())
    assert script.client().get("/builds") == {"fine": True}


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        # Whether it had an effect is not known, so it is not repeated.
        (httpx.Response(502), 1),
        (httpx.ReadTimeout("timed out"), 1),
        # It had none.
        (httpx.Response(503), 2),
        (httpx.ConnectError("refused"), 2),
    ],
)
def test_a_promotion_is_repeated_only_if_it_had_no_effect(answer: Answer, calls: int) -> None:
    script = Script(answer, ok())
    with contextlib.suppress(ApiError):
        script.client().post("/models/0.0.2-aff1242/promotions", {})
    assert len(script.calls) == calls


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500])
def test_a_refusal_is_final_and_shows_what_the_registry_says(status: int) -> None:
    problem = {"title": "There is no such thing", "detail": "GET /models lists them."}
    script = Script(httpx.Response(status, json=problem))
    with pytest.raises(ApiError, match="There is no such thing: GET /models lists them") as refused:
        script.client().get("/builds")
    assert refused.value.status == status
    assert len(script.calls) == 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (httpx.Response(200, html="<html>Sign in</html>"), "text/html"),
        (httpx.Response(200, json=["not", "an", "object"]), "REGISTRY_URL"),
        (httpx.Response(200), "REGISTRY_URL"),
        (httpx.Response(404, html="<h1>nginx</h1>"), "404"),
        (httpx.Response(404, json=["x"]), "404"),
        (
            httpx.Response(307, headers={"Location": "https://u:pw@login.example.org/?t=s3cret"}),
            "redirected to https://login.example.org/",
        ),
        (httpx.Response(301, headers={"Location": "http://[bad"}), "redirected"),
        (httpx.Response(304), "304"),
    ],
)
def test_what_is_not_the_apis_answer_is_an_error_that_names_the_address(
    answer: httpx.Response, says: str
) -> None:
    script = Script(answer)
    with pytest.raises(ApiError) as refused:
        script.client().get("/models/production/latest", version="s3cret")
    assert says in str(refused.value)
    assert "s3cret" not in str(refused.value)
    assert "pw" not in str(refused.value)
    # The token went nowhere else.
    assert [call.url.host for call in script.calls] == ["registry.example.org"]


@pytest.mark.parametrize(
    "call", [lambda client: client.text("/builds/1/log"), lambda client: client.post("/builds", {})]
)
def test_redirects_are_not_followed(call: Callable[[RegistryClient], object]) -> None:
    script = Script(httpx.Response(307, headers={"Location": "https://elsewhere.example.org/"}))
    with pytest.raises(ApiError, match="redirected"):
        call(script.client())
    assert len(script.calls) == 1


def test_a_segment_of_a_path_is_quoted() -> None:
    assert path("models", "a/../b?x=1#y z", "latest") == "/models/a%2F..%2Fb%3Fx%3D1%23y%20z/latest"
    script = Script(ok())
    script.client().get(path("builds", "é%2F"))
    assert script.calls[0].url.raw_path == b"/api/builds/%C3%A9%252F"
