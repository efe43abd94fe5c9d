"""A build from CI's request to the deploy job's download, by real processes."""

import gzip
import hashlib
import io
import json
import tomllib
import zipfile

import httpx
import torch

from tests.e2e.service import ROOT, Service, small_config, step_of
from training.config import differences


def test_ci_builds_a_commit_and_the_deploy_job_deploys_it(service: Service, head: str) -> None:
    service.start_worker()
    # This checkout's own configuration, on the test's small data.
    config = (ROOT / "search-config.toml").read_text()
    built = service.run("build", "--branch", "feature/x", "--promote-to", "development")
    assert built.returncode == 0, built.stdout + built.stderr
    prefix = f"{tomllib.loads(config)['version']}-{head[:7]}"
    for words in (f"Queued {prefix}", "✓ train", "✓ publish", f"Published {prefix}", "Verdict: passed"):
        assert words in built.stdout
    build = httpx.get(f"{service.url}/builds").json()["items"][0]
    build = service.build(build["id"])
    assert (build["sha"], build["branch"]) == (head, "feature/x")
    assert build["state"] == "succeeded", build["failure"]
    assert [step["state"] for step in build["steps"]] == ["succeeded"] * 16
    assert all(step["started_at"] and step["finished_at"] for step in build["steps"])
    assert step_of(build, "find_image")["output"]["name"] == "FPO Training 1.1.0"
    assert step_of(build, "bring_code")["output"]["commit"] == head
    assert build["instance"]["terminated"]

    # There was one machine, and it is gone.
    instances = service.cloud.instances(ended=True)
    assert [found.state for found in instances] == ["terminated"]

    # As the deploy job.
    latest = json.loads(service.run("latest", "development", "--json").stdout)
    assert (latest["prefix"], latest["sha"]) == (prefix, head)
    assert set(latest["artifacts"]) == {
        "model.zip",
        "search-config.toml",
        "benchmark_results.xml",
        "benchmark_results.zip",
        "training_report.html",
        "check_result.json",
        "provenance.json",
        "build.log.gz",
        "model.sig",
        "sbom.cdx.json",
    }
    files = {}
    for name, artifact in latest["artifacts"].items():
        content = httpx.get(artifact["url"]).content
        assert hashlib.sha256(content).hexdigest() == artifact["sha256"], name
        assert len(content) == artifact["size"]
        files[name] = content
    by_name = httpx.get(f"{service.url}/models/{prefix}/artifacts/model.zip", follow_redirects=True)
    assert by_name.content == files["model.zip"]

    # What the code that classifies loads.
    with zipfile.ZipFile(io.BytesIO(files["model.zip"])) as archive:
        assert {"target/model.pt", "target/model.toml", "target/subheadings.json"} <= set(archive.namelist())
        sizes = tomllib.loads(archive.read("target/model.toml").decode())
        weights = torch.load(io.BytesIO(archive.read("target/model.pt")), weights_only=True)
        classes = json.loads(archive.read("target/subheadings.json"))
    assert weights["fc1.weight"].shape == (sizes["hidden_size"], sizes["input_size"])
    assert weights["fc2.weight"].shape == (sizes["output_size"], sizes["hidden_size"])
    assert len(classes) == sizes["output_size"]
    # It names every value, and existing tools find the version with grep.
    published = files["search-config.toml"].decode()
    assert differences(config, published) == ()
    assert "uses_quantized_model = false" in published.splitlines()
    assert [line for line in published.splitlines() if "version" in line] == [
        f'version = "{tomllib.loads(config)["version"]}"'
    ]
    log = gzip.decompress(files["build.log.gz"]).decode()
    assert "[train] started" in log
    assert "[terminate_instance] done" in log

    # What made it: every input is named by its digest, and kept.
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
        "hardware",
        "transformer",
        "python_environment",
        "determinism",
    }
    subjects = {item["name"]: item["digest"]["sha256"] for item in statement["subject"]}
    assert subjects["model.zip"] == latest["artifacts"]["model.zip"]["sha256"]

    model = httpx.get(f"{service.url}/models/{prefix}").json()
    assert model["verdict"] == "passed"
    assert model["stages"] == ["development"]
    assert set(model["metrics"]) == {"known", "vague"}

    # The layout of the bucket, object by object, with the markers.
    service.await_build(build["id"], lambda _: f"{prefix}/passed" in service.bucket_keys(), 30)
    service.await_build(build["id"], lambda _: f"{prefix}/development" in service.bucket_keys(), 30)
    inputs = sorted(key for key in service.bucket_keys() if key.startswith("inputs/sha256/"))
    # The two archives, the code, the configuration as it was posted, and the Python environment.
    assert len(inputs) == 5
    assert sorted(service.bucket_keys()) == sorted(
        ["raw_source_data.zip", "benchmarking_data.zip", *inputs]
        + [f"{prefix}/{name}" for name in (*files, "passed", "development")]
    )

    # CI asks again, and nothing is built twice. A terminal that cannot show everything changes nothing.
    again = service.run("build", PYTHONIOENCODING="ascii")
    assert again.returncode == 0, again.stderr
    assert "There is a build already, succeeded" in again.stdout

    # The deploy job goes from stage to stage, and cannot leave one out.
    refused = service.run("promote", prefix, "production")
    assert refused.returncode == 3
    assert "staging" in refused.stderr
    for stage in ("staging", "production"):
        promoted = service.run("promote", prefix, stage, "--note", "release 42")
        assert promoted.returncode == 0, promoted.stderr
        assert f"runs in {stage}" in promoted.stdout
    assert json.loads(service.run("latest", "production", "--json").stdout)["prefix"] == prefix


def test_a_failed_training_fails_its_build_and_leaves_its_log_but_no_machine(
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
