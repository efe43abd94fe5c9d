"""POST /builds: what CI may ask for, and what it is answered."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from app.db.session import Database
from app.main import create_app
from app.registry.builds import requests
from app.registry.builds.requests import BuildRequest
from app.settings import Settings
from app.words import BuildKind
from tests.integration.app.registry import Registry, config_of, sha_of

TOML = config_of("1.0.0")


def test_a_commit_with_a_risen_version_is_queued(api: TestClient, registry: Registry) -> None:
    body = registry.body("0.0.2", sha_of(1), base_search_config=config_of("0.0.1"), promote_to="development")
    answer = api.post("/builds", json=body)
    assert answer.status_code == 202
    assert answer.json()["outcome"] == "queued"
    assert answer.json()["prefix"] == "0.0.2-0000001"
    build = answer.json()["build"]
    assert build["state"] == "queued"
    assert build["sha"] == sha_of(1)
    assert build["promote_to"] == "development"
    assert build["created_at"].endswith("Z")
    assert [step["name"] for step in build["steps"]] == list(BuildKind.TRAIN.steps)
    assert {step["state"] for step in build["steps"]} == {"pending"}
    assert api.get(f"/builds/{build['id']}").json() == build
    job = registry.values("SELECT args->>'build_id' FROM procrastinate_jobs WHERE task_name = 'run_build'")
    assert job == [build["id"]]


def test_a_second_post_for_a_prefix_is_answered_with_its_build(api: TestClient, registry: Registry) -> None:
    body = registry.body()
    first = api.post("/builds", json=body)
    for state in ("queued", "running", "succeeded"):
        second = api.post("/builds", json=body)
        assert second.status_code == 200
        assert second.json()["outcome"] == "exists"
        assert second.json()["build"]["id"] == first.json()["build"]["id"]
        assert second.json()["build"]["state"] == state
        build_id = registry.values("SELECT id FROM builds")[0]
        if state == "queued":
            registry.take(build_id)
        elif state == "running":
            registry.execute("UPDATE builds SET lease_expires_at = NULL")
            registry.publish(build_id)
    assert registry.count("builds") == 1
    assert registry.count("procrastinate_jobs", "task_name = 'run_build'") == 1


def test_a_failed_build_frees_its_prefix(api: TestClient, registry: Registry) -> None:
    body = registry.body()
    first = api.post("/builds", json=body).json()["build"]["id"]
    registry.fail(registry.values("SELECT id FROM builds")[0])
    again = api.post("/builds", json=body)
    assert again.status_code == 202
    assert again.json()["build"]["id"] != first
    failure = api.get(f"/builds/{first}").json()["failure"]
    assert failure == {
        "step": "train",
        "code": "out_of_memory",
        "message": "Take a larger machine.",
        "retry_helps": False,
    }


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        ("1.0.0", "version_unchanged"),
        ("1.0.1", "version_rolled_back"),
        ("1.1.0-rc.1", "version_rolled_back"),
    ],
)
def test_no_model_is_needed_unless_the_version_has_risen(
    api: TestClient, registry: Registry, base: str, reason: str
) -> None:
    answer = api.post("/builds", json=registry.body("1.0.0", base_search_config=config_of(base)))
    assert answer.status_code == 200
    assert (answer.json()["outcome"], answer.json()["reason"]) == ("not_needed", reason)
    assert answer.json()["build"] is None
    assert set(registry.counts().values()) == {0}


def test_force_builds_although_the_version_has_not_risen(api: TestClient, registry: Registry) -> None:
    answer = api.post("/builds", json=registry.body(base_search_config=config_of("2.0.0"), force=True))
    assert answer.status_code == 202
    assert registry.value("SELECT forced FROM builds") is True


def test_another_commit_with_the_same_digits_is_refused(api: TestClient, registry: Registry) -> None:
    mine, other = "abcdef1" + "0" * 33, "abcdef1" + "1" * 33
    first = api.post("/builds", json=registry.body(sha=mine)).json()
    before = registry.counts()
    refused = api.post("/builds", json=registry.body(sha=other))
    assert refused.status_code == 409
    problem = refused.json()
    assert problem["type"] == "/problems/prefix-collision"
    assert (problem["prefix"], problem["build"]) == (first["prefix"], first["build"]["id"])
    assert mine in problem["detail"]
    assert other in problem["detail"]
    assert "Raise the version" in problem["detail"]
    assert registry.counts() == before
    assert api.post("/builds", json=registry.body(sha=mine.upper())).json()["outcome"] == "exists"


@pytest.mark.parametrize("digits", [7, 8, 39])
def test_a_commit_must_be_sent_whole(unchanged_api: TestClient, unchanged: Registry, digits: int) -> None:
    """Two commits that share these digits would be taken for one."""
    refused = unchanged_api.post("/builds", json=unchanged.body(sha=sha_of(1)[:digits]))
    assert refused.status_code == 422
    assert "Send all 40 hex digits" in refused.json()["detail"]
    assert set(unchanged.counts().values()) == {0}


def test_the_same_commit_with_another_configuration_is_refused(api: TestClient, registry: Registry) -> None:
    body = registry.body(search_config=TOML)
    first = api.post("/builds", json=body).json()["build"]["id"]
    before = registry.counts()
    refused = api.post("/builds", json=body | {"search_config": TOML.replace("digits = 6", "digits = 8")})
    assert refused.status_code == 409
    problem = refused.json()
    assert problem["type"] == "/problems/config-differs"
    assert (problem["build"], problem["keys"]) == (first, ["digits"])
    assert problem["differences"] == [{"key": "digits", "there": "6", "sent": "8"}]
    assert registry.counts() == before
    # Another layout, and a value that is written out, are the same configuration.
    same = "# of the team\n" + TOML.replace(" = ", "=") + "seed = 0\n"
    answer = api.post("/builds", json=body | {"search_config": same})
    assert answer.status_code == 200, answer.text
    assert answer.json()["outcome"] == "exists"


def test_a_model_is_compared_as_a_build_is(api: TestClient, registry: Registry) -> None:
    prefix = registry.model("1.0.0")
    sha, build = (registry.value(f"SELECT {name} FROM models") for name in ("sha", "build_id"))
    # The model decides, whatever became of the build.
    answer = api.post("/builds", json=registry.body(sha=sha)).json()
    assert (answer["outcome"], answer["prefix"], answer["build"]["id"]) == ("exists", prefix, str(build))
    collision = api.post("/builds", json=registry.body(sha=sha[:7] + "f" * 33))
    assert (collision.status_code, collision.json()["type"]) == (409, "/problems/prefix-collision")
    differs = api.post("/builds", json=registry.body(sha=sha, search_config=TOML + "seed = 5\n"))
    assert differs.status_code == 409
    assert differs.json()["differences"] == [{"key": "seed", "there": "0", "sent": "5"}]
    assert "has a model with other values of seed" in differs.json()["detail"]
    assert registry.count("builds") == 1


def test_an_imported_model_is_not_built_again(api: TestClient, registry: Registry) -> None:
    sha = sha_of(5)
    body = registry.body(sha=sha, search_config=TOML)
    registry.execute(
        "INSERT INTO models (prefix, version, sha, origin, search_config, metrics, verdict, verdict_reason)"
        " VALUES ('1.0.0-' || :sha7, '1.0.0', :sha7, 'imported', :config, '{}', 'unknown', 'imported')",
        sha7=sha[:7],
        config=TOML,
    )
    for answer in (*at_the_same_moment(api, [body] * 10), api.post("/builds", json=body | {"dry_run": True})):
        assert answer.status_code == 200
        assert (answer.json()["outcome"], answer.json()["build"]) == ("exists", None)
    refused = api.post("/builds", json=body | {"search_config": TOML + "seed = 5\n"})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/config-differs")
    assert "build" not in refused.json()
    assert registry.count("builds") == 0


def test_the_difference_of_two_configurations_shows_no_secret_and_is_bounded(
    api: TestClient, registry: Registry
) -> None:
    def config(word: str) -> str:
        url = f"https://example.com/{word}?signature={word}-secret"
        names = "".join(f'[benchmark_floors."{word}{number}"]\ntop_1 = 0.5\n' for number in range(150))
        return f'{TOML}search_references_url = "{url}"\n{names}'

    body = registry.body(search_config=config("one"))
    api.post("/builds", json=body)
    refused = api.post("/builds", json=body | {"search_config": config("two")})
    assert refused.status_code == 409
    assert "secret" not in refused.text
    assert len(refused.content) < 20_000
    problem = refused.json()
    assert len(problem["differences"]) == 50
    assert problem["differences_left_out"] == 50


BAD = [
    ({"sha": "abc12"}, "invalid-request", ["sha 'abc12'", "all 40 hex digits"]),
    ({"sha": "not-hex-at-all"}, "invalid-request", ["git rev-parse HEAD"]),
    ({"sha": "a" * 101}, "invalid-request", ["body.sha"]),
    ({"branch": ""}, "invalid-request", ["body.branch"]),
    ({"branch": "a\0b"}, "invalid-request", ["body.branch", "U+0000"]),
    ({"base_search_config": "\0"}, "invalid-request", ["body.base_search_config", "U+0000"]),
    ({"promote_to": "moon"}, "invalid-request", ["body.promote_to", "'development'"]),
    ({"promote_to": "production"}, "invalid-request", ["promote_to can only be development", "/promotions"]),
    ({"typo": 1}, "invalid-request", ["body.typo"]),
    ({"search_config": "name = = 1"}, "invalid-search-config", ["is not valid TOML", "line 1"]),
    ({"search_config": TOML + "learning_rat = 1\n"}, "invalid-search-config", ["line 4", "learning_rate"]),
    ({"search_config": TOML + 'max_epochs = "5"\n'}, "invalid-search-config", ["line 4", "max_epochs"]),
    ({"search_config": config_of("one")}, "invalid-search-config", ["line 2: version", "MAJOR.MINOR.PATCH"]),
    ({"search_config": 'name = "x"\n'}, "invalid-search-config", ["version", "is missing"]),
    ({"search_config": "a = " + "[" * 3000}, "invalid-search-config", ["cannot be read"]),
    ({"search_config": TOML + f"seed = {'9' * 5000}"}, "invalid-search-config", ["cannot be read"]),
    ({"thresholds": ""}, "invalid-thresholds", ["has no [[thresholds]]"]),
    ({"thresholds": "[data]\nrow = 1"}, "invalid-thresholds", ["line 2: data.row", "Did you mean 'rows'?"]),
    ({"thresholds": "#" * 70_000}, "invalid-request", ["body.thresholds"]),
    ({"thresholds": "# \x00"}, "invalid-request", ["body.thresholds", "U+0000"]),
    ({"search_config": config_of(f"1.{'9' * 5000}.0")}, "invalid-request", ["no more than 100"]),
]


@pytest.mark.parametrize(("changes", "kind", "says"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input_is_refused_with_what_to_do_and_leaves_nothing(
    unchanged_api: TestClient, unchanged: Registry, changes: dict[str, Any], kind: str, says: list[str]
) -> None:
    answer = unchanged_api.post("/builds", json=unchanged.body() | changes)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"/problems/{kind}"
    for text in says:
        assert text in problem["detail"]
    assert set(unchanged.counts().values()) == {0}


def test_a_problem_of_the_configuration_names_key_and_line(api: TestClient, registry: Registry) -> None:
    text = TOML + "hidden_size = 0\n"
    problem = api.post("/builds", json=registry.body(search_config=text)).json()
    assert [(found["key"], found["line"]) for found in problem["problems"]] == [("hidden_size", 4)]


def test_thresholds_are_kept_with_the_build_to_the_letter(
    api: TestClient, registry: Registry, settings: Settings, tmp_path: Path
) -> None:
    mine, of_the_registry = "# mine\r\n[data]\nfewest_rows = 5\n", "[data]\nfewest_rows = 7\n"
    file = tmp_path / "thresholds.toml"
    file.write_bytes(of_the_registry.encode())
    api.post("/builds", json=registry.body("1.0.0"))
    with TestClient(create_app(settings.model_copy(update={"thresholds_file": file}))) as with_default:
        with_default.post("/builds", json=registry.body("1.0.1"))
        with_default.post("/builds", json=registry.body("1.0.2", thresholds=mine))
    kept = registry.values("SELECT thresholds FROM builds ORDER BY version")
    assert kept == [None, of_the_registry, mine]
    refused = api.post("/builds", json=registry.body(thresholds="thresholds = 1")).json()
    [problem] = refused["problems"]
    assert (problem["key"], problem["line"]) == ("thresholds", 1)


@hypothesis_settings(max_examples=40)
@given(st.text(max_size=200), st.text(max_size=50))
def test_a_text_that_is_not_a_configuration_is_refused_with_the_reason(
    unchanged_api: TestClient, unchanged: Registry, text: str, tail: str
) -> None:
    """Whether the text cannot be stored, is not TOML, or is TOML without what a model needs."""
    for content in (text, f'name = "x"\n{text}', f"{TOML}{tail}\n= ="):
        answer = unchanged_api.post("/builds", json=unchanged.body() | {"search_config": content})
        assert answer.status_code == 422
        problem = answer.json()
        kind = problem["type"].removeprefix("/problems/")
        assert kind in ("invalid-search-config", "invalid-request")
        assert "search_config" in problem["detail"]
        # Without a list, the configuration is beyond what its parser takes, and the detail says so.
        assert problem["problems"] or "Write it more simply" in problem["detail"]
    assert set(unchanged.counts().values()) == {0}


def at_the_same_moment(api: TestClient, bodies: list[dict[str, Any]]) -> list[Any]:
    together = threading.Barrier(len(bodies))

    def post(body: dict[str, Any]) -> Any:
        together.wait()
        return api.post("/builds", json=body)

    with ThreadPoolExecutor(len(bodies)) as threads:
        return list(threads.map(post, bodies))


def test_twenty_posts_at_the_same_moment_make_one_build(api: TestClient, registry: Registry) -> None:
    answers = at_the_same_moment(api, [registry.body("1.0.0", sha_of(7))] * 20)
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [202]
    assert len({answer.json()["build"]["id"] for answer in answers}) == 1
    assert registry.count("builds") == 1
    assert registry.count("build_events", "type = 'state'") == 1
    assert registry.count("procrastinate_jobs") == 1


def test_posts_for_two_prefixes_at_the_same_moment_make_two(api: TestClient, registry: Registry) -> None:
    bodies = [registry.body("1.0.0", sha_of(7)), registry.body("1.0.1", sha_of(7))] * 10
    answers = at_the_same_moment(api, bodies)
    assert sorted(answer.status_code for answer in answers) == [200] * 18 + [202] * 2
    named = {(answer.json()["prefix"], answer.json()["build"]["id"]) for answer in answers}
    assert len(named) == 2
    assert registry.count("builds") == 2
    jobs = registry.values("SELECT args->>'build_id' FROM procrastinate_jobs")
    assert sorted(jobs) == sorted(build for _, build in named)


def test_of_two_commits_with_one_prefix_at_the_same_moment_one_gets_it(
    api: TestClient, registry: Registry
) -> None:
    shas = ["abcdef1" + digit * 33 for digit in "01"]
    answers = at_the_same_moment(api, [registry.body(sha=sha) for sha in shas * 8])
    [winner] = registry.values("SELECT sha FROM builds")
    for sha, answer in zip(shas * 8, answers, strict=True):
        assert answer.status_code in ((200, 202) if sha == winner else (409,)), answer.text
    assert sum(answer.status_code == 202 for answer in answers) == 1
    refused = [answer.json() for answer in answers if answer.status_code == 409]
    assert {problem["type"] for problem in refused} == {"/problems/prefix-collision"}
    assert registry.count("build_events") == registry.count("procrastinate_jobs") == 1


def test_of_two_configurations_at_the_same_moment_one_is_built(api: TestClient, registry: Registry) -> None:
    texts = [TOML, TOML + "seed = 5\n"]
    answers = at_the_same_moment(api, [registry.body(sha=sha_of(7), search_config=of) for of in texts * 8])
    [stored] = registry.values("SELECT search_config FROM builds")
    for text, answer in zip(texts * 8, answers, strict=True):
        assert answer.status_code in ((200, 202) if text == stored else (409,)), answer.text
    refused = [answer.json() for answer in answers if answer.status_code == 409]
    assert {(problem["type"], *problem["keys"]) for problem in refused} == {
        ("/problems/config-differs", "seed")
    }
    assert registry.count("procrastinate_jobs") == 1


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_after_a_build_has_ended_posts_at_the_same_moment_queue_one_more(
    api: TestClient, registry: Registry, state: str
) -> None:
    ended = registry.queue("1.0.0", sha_of(7))
    registry.fail(ended)
    registry.execute(f"UPDATE builds SET state = '{state}'")
    answers = at_the_same_moment(api, [registry.body(sha=sha_of(7))] * 10)
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [202]
    [build] = {answer.json()["build"]["id"] for answer in answers}
    assert build != str(ended)
    assert registry.count("builds") == 2


def test_posts_that_race_with_the_publication_are_told_of_the_one_build(
    api: TestClient, registry: Registry
) -> None:
    build = registry.queue("1.0.0", sha_of(7))
    with ThreadPoolExecutor(1) as other:
        publishing = other.submit(registry.publish, build)
        answers = at_the_same_moment(api, [registry.body(sha=sha_of(7))] * 10)
        publishing.result()
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["build"]["id"] for answer in answers} == {str(build)}
    assert registry.count("builds") == 1


def test_a_post_waits_for_one_that_has_not_committed_and_takes_its_place_when_that_fails(
    api: TestClient, registry: Registry
) -> None:
    wanted = BuildRequest(sha_of(7), "main", TOML)
    for commits in (False, True):
        with ThreadPoolExecutor(1) as other, registry.database.engine.connect() as connection:
            first = requests.request(Session(connection), wanted)
            assert first.outcome == "queued"
            waiting = other.submit(api.post, "/builds", json=registry.body(sha=sha_of(7)))
            registry.await_value("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")
            if commits:
                connection.commit()
            else:
                connection.rollback()
            assert waiting.result().status_code == (200 if commits else 202)
        if not commits:
            registry.fail(registry.values("SELECT id FROM builds")[0])
    assert registry.count("builds") == 2
    assert registry.count("procrastinate_jobs", "task_name = 'run_build'") == 2


def test_a_dry_run_waits_for_nobody(api: TestClient, registry: Registry) -> None:
    with registry.database.engine.connect() as connection:
        requests.request(Session(connection), BuildRequest(sha_of(7), "main", TOML))
        answer = api.post("/builds", json=registry.body(sha=sha_of(7), dry_run=True))
        assert (answer.status_code, answer.json()["outcome"]) == (200, "needed")
        connection.rollback()


def test_posts_that_race_with_the_end_of_a_failing_build_make_one_more(
    api: TestClient, registry: Registry
) -> None:
    build_id = registry.queue("1.0.0", sha_of(7))
    body = registry.body("1.0.0", sha_of(7))
    with ThreadPoolExecutor(1) as other:
        failing = other.submit(registry.fail, build_id)
        answers = at_the_same_moment(api, [body] * 10)
        failing.result()
    # Whoever came before the end was told of the failing build, and the others of one new build.
    made = {answer.json()["build"]["id"] for answer in answers if answer.status_code == 202}
    told = {answer.json()["build"]["id"] for answer in answers if answer.status_code == 200}
    assert len(answers) == sum(answer.status_code in (200, 202) for answer in answers)
    assert len(made) == sum(answer.status_code == 202 for answer in answers) <= 1
    assert told <= {str(build_id)} | made
    # From now on there is one active build, and it has a job.
    active = api.post("/builds", json=body).json()["build"]
    assert active["state"] == "queued"
    assert made <= {active["id"]}
    assert registry.values("SELECT id FROM builds WHERE state = 'failed'") == [build_id]
    assert registry.count("builds") == 2
    jobs = registry.values("SELECT args->>'build_id' FROM procrastinate_jobs WHERE task_name = 'run_build'")
    assert sorted(jobs) == sorted([str(build_id), active["id"]])


def test_a_build_and_its_job_are_committed_together_or_not_at_all(
    database: Database, registry: Registry
) -> None:
    class Boom(Exception):
        pass

    def ask_and_die() -> None:
        with database.transaction() as session:
            requests.request(session, BuildRequest(sha_of(1), "main", config_of("1.0.0")))
            raise Boom

    with pytest.raises(Boom):
        ask_and_die()
    assert set(registry.counts().values()) == {0}


def test_builds_are_listed_by_state_branch_and_prefix(api: TestClient, registry: Registry) -> None:
    ours = [registry.queue(branch="ours") for _ in range(3)]
    registry.queue(branch="theirs")
    registry.fail(ours[0])
    listed = api.get("/builds", params={"branch": "ours"}).json()["items"]
    assert [item["id"] for item in listed] == [str(build) for build in reversed(ours)]
    queued = api.get("/builds", params={"branch": "ours", "state": "queued"}).json()["items"]
    assert [item["id"] for item in queued] == [str(ours[2]), str(ours[1])]
    prefix = listed[0]["prefix"]
    assert [item["id"] for item in api.get("/builds", params={"prefix": prefix}).json()["items"]] == [
        str(ours[2])
    ]


def test_times_are_utc_whatever_zone_the_server_is_in(api: TestClient, registry: Registry) -> None:
    name = registry.value("SELECT current_database()")
    registry.execute(f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")
    registry.database.engine.dispose()
    build = api.post("/builds", json=registry.body()).json()["build"]
    assert build["created_at"].endswith("Z")
