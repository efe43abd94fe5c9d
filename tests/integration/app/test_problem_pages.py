"""The `type` of each problem is the address of a page that explains it."""

from collections import Counter

from fastapi.testclient import TestClient

from app.api.common.errors import all_kinds
from app.main import create_app
from app.settings import Settings
from app.words import Access


def test_the_type_of_every_problem_answers_a_page_that_explains_it(api: TestClient) -> None:
    listed = api.get("/problems").text
    for kind in all_kinds():
        answer = api.get(f"/problems/{kind.type}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert kind.title in answer.text
        assert f"{int(kind.status)} {kind.status.phrase}" in answer.text
        assert f'href="/problems/{kind.type}"' in listed


def test_each_type_has_one_title() -> None:
    titles = Counter(type_ for type_, _ in {(kind.type, kind.title) for kind in all_kinds()})
    assert set(titles.values()) == {1}


def test_a_type_that_does_not_exist_is_refused(api: TestClient) -> None:
    answer = api.get("/problems/<script>")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")


def test_the_pages_need_no_token(settings: Settings) -> None:
    closed = create_app(settings.model_copy(update={"access": Access.TOKENS, "api_tokens": ()}))
    with TestClient(closed) as client:
        assert client.get("/models").status_code == 401
        assert client.get("/problems").status_code == 200
        assert client.get("/problems/unauthorized").status_code == 200
