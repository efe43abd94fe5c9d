"""Builds beside each other, or whose workers, inputs, instances or commits are lost, by real processes.

The training is the fake one, which runs until a test lets it end, so no test waits for a model.
"""

import json
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.words import BuildKind
from local.fake_training import Control, Repository
from local.simcloud.seed import add_image
from tests.e2e.service import Service, small_raw_data, step_of

CONFIG = 'name = "outages"\nversion = "{version}"\ndigits = 6\ncn_data_file = "cn.csv"\n'


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository.make(tmp_path_factory.mktemp("code") / "repository")


@pytest.fixture(scope="module")
def repository(code: Repository) -> Path:
    return code.folder


@pytest.fixture(scope="module")
def running_control(tmp_path_factory: pytest.TempPathFactory) -> Control:
    return Control(tmp_path_factory.mktemp("control"))


@pytest.fixture(scope="module")
def machine_environment(running_control: Control) -> dict[str, str]:
    return running_control.environment(seconds=0.3)


@pytest.fixture
def control(running_control: Control) -> Iterator[Control]:
    yield running_control
    running_control.clear()


def post(service: Service, code: Repository, version: str = "0.0.2") -> str:
    """Post a build of a new commit; returns its id."""
    config = CONFIG.format(version=version)
    build_id: str = service.post(code.commit(config), config)["build"]["id"]
    return build_id


def test_two_prefixes_are_built_side_by_side(service: Service, code: Repository, control: Control) -> None:
    control.hold("train")
    service.start_worker()
    ids = [post(service, code, version) for version in ("0.0.3", "0.0.4")]
    for build_id in ids:
        service.await_step(build_id, "train")
    # Neither waits for the other to end.
    assert [service.build(build_id)["state"] for build_id in ids] == ["running", "running"]
    control.release("train")
    builds = [service.await_end(build_id) for build_id in ids]
    assert [build["state"] for build in builds] == ["succeeded", "succeeded"]
    assert len(service.cloud.instances(ended=True)) == 2
    assert not service.cloud.instances()


def test_a_build_without_raw_data_fails_before_it_costs_anything(service: Service, code: Repository) -> None:
    service.s3().delete_object(Bucket=service.cloud.bucket, Key="raw_source_data.zip")
    service.start_worker()
    build = service.await_end(post(service, code))
    assert build["state"] == "failed"
    assert build["failure"]["step"] == "needs_model"
    assert build["failure"]["code"] == "missing_input"
    assert "raw_source_data.zip" in build["failure"]["message"]
    assert service.cloud.instances(ended=True) == []
    # The prefix is free again, and with the data in place the same post builds.
    with service.client() as client:
        assert client.get("/models")["items"] == []
    assert service.post(build["sha"], CONFIG.format(version="0.0.2"))["outcome"] == "queued"


def test_a_build_outlives_workers_that_stop_or_die(
    service: Service, code: Repository, control: Control
) -> None:
    control.hold("train")
    stopped = service.start_worker()
    build_id = post(service, code)
    service.await_job(build_id, "train")
    stopped.terminate()
    assert stopped.wait(20) == 0
    assert service.build(build_id)["state"] == "running"

    killed = service.start_worker()
    service.await_build(build_id, lambda build: step_of(build, "train")["attempts"] == 2)
    killed.send_signal(signal.SIGKILL)
    killed.wait()

    service.start_worker()
    service.await_build(build_id, lambda build: step_of(build, "train")["attempts"] == 3)
    control.release("train")
    build = service.await_end(build_id)
    assert build["state"] == "succeeded", build["failure"]
    # Each worker went on with the training that the first one started.
    assert control.starts("train") == [build_id]
    assert step_of(build, "launch_instance")["attempts"] == 1
    assert len(service.cloud.instances(ended=True)) == 1
    with service.client() as client:
        assert [model["prefix"] for model in client.get("/models")["items"]] == [build["prefix"]]
        log = client.text(f"/builds/{build_id}/log")
    # Not a line of the job's log is missing or doubled.
    lines = [int(number) for number in re.findall(r"^train: line (\d+)$", log, re.MULTILINE)]
    assert lines == list(range(1, len(lines) + 1))
    assert lines


def test_a_build_whose_instance_aws_takes_away_gets_another_one(
    service: Service, code: Repository, control: Control
) -> None:
    control.hold("train")
    service.start_worker()
    build_id = post(service, code)
    service.await_step(build_id, "train")
    service.cloud.kill_instance(service.cloud.instances()[0].id)
    service.await_build(build_id, lambda build: len(build["launches"]) == 2)
    service.await_job(build_id, "train")
    assert len(service.cloud.instances()) == 1
    control.release("train")
    built = service.await_end(build_id)
    assert [step["state"] for step in built["steps"]] == ["succeeded"] * len(BuildKind.TRAIN.steps)
    assert [launch["state"] for launch in built["launches"]] == ["terminated", "terminated"]
    assert service.cloud.instances() == []
    with service.client() as client:
        log = client.text(f"/builds/{build_id}/log")
    assert "instance_lost" in log


@pytest.fixture
def references() -> Iterator[list[bytes]]:
    """A server of search references. The first item is its address, and the last one is what it answers."""
    said: list[bytes] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said[-1])

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    said.append(f"http://127.0.0.1:{server.server_port}/references.json".encode())
    yield said
    server.shutdown()
    server.server_close()


def test_a_model_is_made_again_after_its_data_image_and_commit_have_gone(
    service: Service, code: Repository, control: Control, references: list[bytes]
) -> None:
    (control.folder / "repeatable").touch()
    service.start_worker()
    config = CONFIG + f'search_references_url = "{references[0].decode()}"\n'
    references.append(b'{"data": [1]}')

    def build(version: str) -> dict[str, Any]:
        text = config.format(version=version)
        build_id = service.post(code.commit(text), text)["build"]["id"]
        return service.await_end(build_id)

    first = build("0.0.5")
    assert first["state"] == "succeeded", first["failure"]
    references.append(b'{"data": [2]}')
    service.put("raw_source_data.zip", small_raw_data(rows=50))
    add_image(service.cloud.region, "FPO Training 4.0.0", datetime.now(UTC))
    second = build("0.0.6")
    assert second["state"] == "succeeded", second["failure"]
    where = f"{service.url}/models/{second['prefix']}/compare/{first['prefix']}"
    compared = httpx.get(where).json()["made_from"]
    changed = {one["kind"] for one in compared["inputs"]} - {"code", "config"}
    assert changed == {"raw_data", "additional_source", "machine_image"}
    assert [one["key"] for one in compared["config"]] == ["version"]

    # The branch is deleted, and git forgets the commit.
    for arguments in (
        ("checkout", "--quiet", "--orphan", "new"),
        ("-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "--quiet", "--message", "new"),
        ("branch", "-D", "main"),
        ("reflog", "expire", "--expire=now", "--all"),
        ("gc", "--quiet", "--prune=now"),
    ):
        subprocess.run(["git", *arguments], cwd=code.folder, check=True, capture_output=True)
    gone = subprocess.run(["git", "cat-file", "-e", first["sha"]], cwd=code.folder, capture_output=True)
    assert gone.returncode != 0
    again = service.run("reproduce", first["prefix"], "--json", "--no-log")
    assert again.returncode == 0, again.stdout + again.stderr
    outcome = json.loads(again.stdout)["reproduction"]["outcome"]
    assert (outcome["verdict"], outcome["same_bytes"]) == ("identical", "model.zip")
    assert (outcome["inputs"], outcome["findings"]) == ([], [])
    model = httpx.get(f"{service.url}/models/{first['prefix']}").json()
    assert model["last_reproduction"]["verdict"] == "identical"
