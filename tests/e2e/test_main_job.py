"""A build from CI's post to the deploy job's download, by real processes."""

import gzip
import hashlib
import io
import json
import signal
import tomllib
import zipfile

import httpx
import pytest
import torch

from cli.answers import ApiError
from tests.e2e.service import Service, small_config, step_of


def test_a_posted_commit_becomes_a_model_that_a_deploy_job_can_fetch(service: Service, head: str) -> None:
    service.start_worker()
    answer = service.post(head, small_config(), promote_to="development")
    assert answer["outcome"] == "queued"
    prefix = f"0.0.2-{head[:7]}"
    assert answer["prefix"] == prefix
    build = service.await_end(answer["build"]["id"])

    assert build["state"] == "succeeded", build["failure"]
    assert [step["state"] for step in build["steps"]] == ["succeeded"] * 16
    assert all(step["started_at"] and step["finished_at"] for step in build["steps"])
    assert step_of(build, "find_image")["output"]["name"] == "FPO Training 1.1.0"
    assert step_of(build, "bring_code")["output"]["commit"] == head
    assert build["instance"]["terminated"]

    # One machine, with our tags, and it is gone.
    instances = service.cloud.instances(ended=True)
    assert [found.state for found in instances] == ["terminated"]

    # As the deploy job.
    latest = httpx.get(f"{service.url}/models/development/latest").json()
    assert latest["prefix"] == prefix
    assert set(latest["artifacts"]) == {
        "model.zip",
        "search-config.toml",
        "benchmark_results.xml",
        "benchmark_results.zip",
        "provenance.json",
        "build.log.gz",
    }
    files = {}
    for name, artifact in latest["artifacts"].items():
        content = httpx.get(artifact["url"]).content
        assert hashlib.sha256(content).hexdigest() == artifact["sha256"], name
        assert len(content) == artifact["size"]
        files[name] = content
    by_name = httpx.get(f"{service.url}/models/{prefix}/artifacts/model.zip", follow_redirects=True)
    assert by_name.content == files["model.zip"]

    # What inference code loads.
    with zipfile.ZipFile(io.BytesIO(files["model.zip"])) as archive:
        assert {"target/model.pt", "target/model.toml", "target/subheadings.json"} <= set(archive.namelist())
        sizes = tomllib.loads(archive.read("target/model.toml").decode())
        weights = torch.load(io.BytesIO(archive.read("target/model.pt")), weights_only=True)
        classes = json.loads(archive.read("target/subheadings.json"))
    assert weights["fc1.weight"].shape == (sizes["hidden_size"], sizes["input_size"])
    assert weights["fc2.weight"].shape == (sizes["output_size"], sizes["hidden_size"])
    assert len(classes) == sizes["output_size"]
    assert files["search-config.toml"].decode() == small_config()
    log = gzip.decompress(files["build.log.gz"]).decode()
    assert "[train] started" in log
    assert "[terminate_instance] done" in log

    # What made it: every input by digest, and kept.
    statement = json.loads(files["provenance.json"])
    kinds = {
        item["annotations"]["kind"]
        for item in statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    }
    assert kinds == {
        "code",
        "config",
        "raw_data",
        "benchmark_data",
        "machine_image",
        "transformer",
        "python_environment",
    }
    subjects = {item["name"]: item["digest"]["sha256"] for item in statement["subject"]}
    assert subjects["model.zip"] == latest["artifacts"]["model.zip"]["sha256"]

    model = httpx.get(f"{service.url}/models/{prefix}").json()
    assert model["verdict"] == "passed"
    assert model["stages"] == ["development"]
    assert set(model["metrics"]) == {"known", "vague"}

    # The layout, object by object, markers and all.
    service.await_build(build["id"], lambda _: f"{prefix}/passed" in service.bucket_keys(), 30)
    service.await_build(build["id"], lambda _: f"{prefix}/development" in service.bucket_keys(), 30)
    inputs = sorted(key for key in service.bucket_keys() if key.startswith("inputs/sha256/"))
    assert len(inputs) == 2
    assert sorted(service.bucket_keys()) == sorted(
        ["raw_source_data.zip", "benchmarking_data.zip", *inputs]
        + [f"{prefix}/{name}" for name in (*files, "passed", "development")]
    )

    # CI posts again: nothing is built twice.
    again = service.post(head, small_config())
    assert (again["outcome"], again["build"]["id"]) == ("exists", build["id"])


def test_two_prefixes_are_built_side_by_side(service: Service, head: str) -> None:
    service.start_worker()
    ids = [service.post(head, small_config(version))["build"]["id"] for version in ("0.0.3", "0.0.4")]
    for build_id in ids:
        service.await_step(build_id, "train")
    # Neither waited for the other's end.
    assert [service.build(build_id)["state"] for build_id in ids] == ["running", "running"]
    builds = [service.await_end(build_id) for build_id in ids]
    assert [build["state"] for build in builds] == ["succeeded", "succeeded"]
    assert len(service.cloud.instances(ended=True)) == 2
    assert not service.cloud.instances()


def test_a_build_without_raw_data_fails_before_it_costs_anything(service: Service, head: str) -> None:
    service.s3().delete_object(Bucket=service.cloud.bucket, Key="raw_source_data.zip")
    service.start_worker()
    build = service.await_end(service.post(head, small_config())["build"]["id"])
    assert build["state"] == "failed"
    assert build["failure"]["step"] == "needs_model"
    assert build["failure"]["code"] == "missing_input"
    assert "raw_source_data.zip" in build["failure"]["message"]
    assert service.cloud.instances(ended=True) == []
    # The prefix is free again, and with the data in place the same post builds.
    with service.client() as client:
        assert client.get("/models")["items"] == []
    assert service.post(head, small_config())["outcome"] == "queued"


def test_a_training_that_fails_fails_its_build_and_leaves_its_log_but_no_machine(
    service: Service, head: str
) -> None:
    service.start_worker()
    config = small_config().replace("reference_data/cn_self_text.csv", "reference_data/absent.csv")
    build = service.await_end(service.post(head, config)["build"]["id"])
    assert build["state"] == "failed"
    assert (build["failure"]["step"], build["failure"]["code"]) == ("train", "missing_source")
    assert "absent.csv" in build["failure"]["message"]
    assert step_of(build, "train")["state"] == "failed"
    assert step_of(build, "terminate_instance")["state"] == "succeeded"
    assert step_of(build, "publish")["state"] == "skipped"
    assert not service.cloud.instances()
    with service.client() as client:
        log = client.text(f"/builds/{build['id']}/log")
        assert "absent.csv" in log
        assert client.get("/models")["items"] == []
    assert not [key for key in service.bucket_keys() if key.startswith(build["prefix"])]


def test_an_unknown_commit_fails_its_build_with_what_to_do(service: Service) -> None:
    service.start_worker()
    build = service.await_end(service.post("f" * 40, small_config())["build"]["id"])
    assert (build["failure"]["step"], build["failure"]["code"]) == ("bring_code", "unknown_commit")
    assert not service.cloud.instances()


def test_a_killed_worker_costs_neither_the_build_nor_a_second_machine(service: Service, head: str) -> None:
    first = service.start_worker()
    build_id = service.post(head, small_config(epochs=30))["build"]["id"]
    service.await_job(build_id, "train")
    first.send_signal(signal.SIGKILL)
    first.wait()
    interrupted = service.build(build_id)
    assert interrupted["state"] == "running"

    service.start_worker()
    build = service.await_end(build_id)
    assert build["state"] == "succeeded", build["failure"]
    # Taken over, not begun again: the training that the dead worker started is the one that ended.
    assert step_of(build, "train")["attempts"] == 2
    assert step_of(build, "launch_instance")["attempts"] == 1
    assert len(service.cloud.instances(ended=True)) == 1
    with service.client() as client:
        assert [model["prefix"] for model in client.get("/models")["items"]] == [build["prefix"]]
        log = client.text(f"/builds/{build_id}/log")
    # Not a line of the job's log is missing or doubled.
    assert log.count("data: rows") == 1


def test_a_stopped_worker_hands_its_build_over(service: Service, head: str) -> None:
    first = service.start_worker()
    build_id = service.post(head, small_config(epochs=30))["build"]["id"]
    service.await_job(build_id, "train")
    first.terminate()
    assert first.wait(20) == 0
    service.start_worker()
    build = service.await_end(build_id)
    assert build["state"] == "succeeded", build["failure"]
    assert len(service.cloud.instances(ended=True)) == 1


def test_an_instance_that_aws_takes_fails_the_build_cleanly(service: Service, head: str) -> None:
    service.start_worker()
    build_id = service.post(head, small_config(epochs=30))["build"]["id"]
    service.await_step(build_id, "train")
    service.cloud.kill_instance(service.cloud.instances()[0].id)
    build = service.await_end(build_id)
    assert (build["failure"]["step"], build["failure"]["code"]) == ("train", "instance_lost")
    # The prefix is free: CI posts again and gets a new machine.
    again = service.post(head, small_config())
    assert again["outcome"] == "queued"
    assert service.await_end(again["build"]["id"])["state"] == "succeeded"


def test_production_takes_no_model_that_never_was_in_staging(service: Service, head: str) -> None:
    service.start_worker()
    build = service.await_end(service.post(head, small_config())["build"]["id"])
    with service.client() as client:
        path = f"/models/{build['prefix']}/promotions"
        client.post(path, {"stage": "development"})
        with pytest.raises(ApiError, match="staging") as refused:
            client.post(path, {"stage": "production"})
        assert refused.value.status == 409
        client.post(path, {"stage": "staging"})
        client.post(path, {"stage": "production"})
        assert client.get("/models/production/latest")["prefix"] == build["prefix"]
