import errno
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from training.cli import app
from training.errors import FailureCode, TrainingError
from training.job.request import read_job
from training.job.run import failure_of, run
from training.pipeline import Input, Outcome


def result(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "result.json").read_text())
    return content


def test_the_result_of_a_success_has_the_digests_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(b"abc")
    outcome = Outcome(
        [tmp_path / "model.zip"], [Input("transformer", "t", "00")], {"loss": 0.5}, {"classes": 2}
    )
    assert run("train", tmp_path, lambda: outcome) == 0
    assert result(tmp_path) == {
        "schema": 1,
        "command": "train",
        "outcome": "succeeded",
        "files": {
            "model.zip": {
                "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                "size_bytes": 3,
            }
        },
        "inputs": [{"kind": "transformer", "name": "t", "sha256": "00"}],
        "metrics": {"loss": 0.5},
        "counts": {"classes": 2},
    }


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (TrainingError(FailureCode.INVALID_CONFIG, "m"), "invalid_config", 2),
        (TrainingError(FailureCode.MISSING_SOURCE, "m"), "missing_source", 3),
        (TrainingError(FailureCode.DIVERGED, "m"), "diverged", 4),
        (MemoryError(), "out_of_memory", 5),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to"), "out_of_memory", 5),
        (OSError(errno.ENOSPC, "no space"), "out_of_disk", 5),
        (OSError(errno.EACCES, "denied"), "crashed", 1),
        (RuntimeError("else"), "crashed", 1),
    ],
)
def test_a_failure_has_its_code_message_and_exit_status(
    tmp_path: Path, error: Exception, code: str, status: int
) -> None:
    def work() -> Outcome:
        raise error

    assert run("benchmark", tmp_path, work) == status
    written = result(tmp_path)
    assert (written["outcome"], written["code"], written["command"]) == ("failed", code, "benchmark")
    assert written["message"] == failure_of(error).message != ""


def job(folder: Path, **changes: object) -> Path:
    content = {
        "schema": 1,
        "build_id": "b",
        "prefix": "0.0.2-aff1242",
        "sha": "aff1242",
        "config": str(folder / "search-config.toml"),
        "raw_source_data": str(folder / "raw_source_data.zip"),
        "benchmarking_data": str(folder / "benchmarking_data.zip"),
        "output": str(folder / "output"),
    }
    path = folder / "job.json"
    path.write_text(
        json.dumps({key: value for key, value in (content | changes).items() if value is not None})
    )
    return path


def test_the_workers_job_is_read(tmp_path: Path) -> None:
    assert read_job(job(tmp_path)).output == tmp_path / "output"


@pytest.mark.parametrize("changes", [{"schema": 2}, {"schema": None}, {"config": None}, {"output": 5}])
def test_an_invalid_job_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    done = CliRunner().invoke(app, ["train", "--job", str(job(tmp_path, **changes))])
    assert done.exit_code == 2
    written = result(tmp_path)
    assert (written["outcome"], written["code"]) == ("failed", "invalid_job")
    assert next(iter(changes)) in str(written["message"])


def test_a_bad_configuration_is_refused_with_every_problem(tmp_path: Path) -> None:
    (tmp_path / "search-config.toml").write_text('name = "m"\nversion = "1"\nseeed = 1\n')
    assert CliRunner().invoke(app, ["train", "--job", str(job(tmp_path))]).exit_code == 2
    written = result(tmp_path)
    assert written["code"] == "invalid_config"
    assert "line 2: version" in str(written["message"])
    assert "line 3: seeed" in str(written["message"])


def test_missing_raw_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "search-config.toml").write_text(
        'name = "m"\nversion = "0.1.0"\ndevice = "cpu"\ntransformer = "."\n'
    )
    done = CliRunner().invoke(app, ["train", "--job", str(job(tmp_path, raw_source_data=None))])
    assert done.exit_code == 2
    assert result(tmp_path)["code"] == "invalid_job"


def test_a_benchmark_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "search-config.toml").write_text('name = "m"\nversion = "0.1.0"\n')
    assert CliRunner().invoke(app, ["benchmark", "--job", str(job(tmp_path))]).exit_code == 3
    assert "train first" in str(result(tmp_path)["message"])


def test_help_shows_how_to_work_by_hand() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    for command in ("train", "benchmark", "classify"):
        assert f"python -m training {command}" in text
