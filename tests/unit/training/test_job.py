import errno
import json
import math
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from training.cli import app
from training.errors import FailureCode, TrainingError
from training.files import output_folder
from training.inputs.reported import Input
from training.job.request import read_job
from training.job.run import failure_of, run
from training.pipeline import Outcome
from training.storable import without_secrets


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


def test_a_result_can_be_stored_whatever_is_in_it(tmp_path: Path) -> None:
    url = "https://user:s3cret@example.com/a?X-Amz-Signature=s3cret"
    outcome = Outcome(
        [],
        [
            Input(
                "additional_source", "a\x00\nb", "00", url=without_secrets(url), file="snapshots/a\ud800.csv"
            )
        ],
        {"loss": math.nan, "accuracy": 0.5, "x\x1b[2J": math.inf},
        {"a\nb": 1},
    )
    assert run("train", tmp_path, lambda: outcome) == 0
    written = result(tmp_path)
    assert written["metrics"] == {"accuracy": 0.5}
    assert written["counts"] == {"a?b": 1}
    assert written["inputs"] == [
        {
            "kind": "additional_source",
            "name": "a??b",
            "sha256": "00",
            "url": "https://example.com/a",
            "file": "snapshots/a?.csv",
        }
    ]


@pytest.mark.parametrize("reason", [FailureCode.MISSING_SOURCE, FailureCode.CRASHED])
def test_a_failure_can_be_stored_whatever_its_message_is(
    tmp_path: Path, reason: FailureCode, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> Outcome:
        message = f"first\nhttps://u:s3cret@h/a?sig=s3cret \x00\x1b[2J\ud800{'x' * 3_000_000}"
        raise TrainingError(reason, message) if reason is not FailureCode.CRASHED else RuntimeError(message)

    run("train", tmp_path, work)
    message = str(result(tmp_path)["message"])
    assert "first\nhttps://h/a ??[2J?xxx" in message
    assert len(message) == 4000
    logged = capsys.readouterr().err
    assert "s3cret" not in logged
    assert "\x00" not in logged
    assert len(logged) < 200_000


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


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_configuration_in_another_encoding_is_refused_with_a_hint(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "search-config.toml").write_text('name = "é"\nversion = "0.1.0"\n', encoding)
    assert CliRunner().invoke(app, ["train", "--job", str(job(tmp_path))]).exit_code == 2
    assert "Save it as UTF-8" in str(result(tmp_path)["message"])


def test_missing_raw_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "search-config.toml").write_text('name = "m"\nversion = "0.1.0"\ndevice = "cpu"\n')
    done = CliRunner().invoke(app, ["train", "--job", str(job(tmp_path, raw_source_data=None))])
    assert done.exit_code == 2
    assert result(tmp_path)["code"] == "invalid_job"


BENCHMARKS = {
    "no benchmark": {"readme.txt": b"x"},
    "another encoding": {"a.csv": b"caf\xe9,010121\n"},
    "nothing to measure": {"good.csv": b"electric kettle,851610\n", "a.csv": b"Description,Code\nx,1\n"},
}


@pytest.mark.parametrize("files", BENCHMARKS.values(), ids=BENCHMARKS.keys())
def test_benchmarks_that_cannot_be_read_end_the_training_before_it_starts(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    """The raw data does not even exist, so the benchmarks were read first."""
    (tmp_path / "search-config.toml").write_text('name = "m"\nversion = "0.1.0"\ndevice = "cpu"\n')
    with zipfile.ZipFile(tmp_path / "benchmarking_data.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    done = CliRunner().invoke(app, ["train", "--job", str(job(tmp_path))])
    assert done.exit_code == 3
    assert result(tmp_path)["code"] in ("missing_benchmark", "unreadable_source")
    assert list((tmp_path / "output").iterdir()) == []


def test_a_damaged_zip_of_benchmarks_ends_the_training_before_it_starts(tmp_path: Path) -> None:
    (tmp_path / "search-config.toml").write_text('name = "m"\nversion = "0.1.0"\ndevice = "cpu"\n')
    with zipfile.ZipFile(tmp_path / "benchmarking_data.zip", "w") as archive:
        archive.writestr("a.csv", b"electric kettle,851610\n")
    whole = (tmp_path / "benchmarking_data.zip").read_bytes()
    (tmp_path / "benchmarking_data.zip").write_bytes(whole.replace(b"kettle", b"kettlf"))
    assert CliRunner().invoke(app, ["train", "--job", str(job(tmp_path))]).exit_code == 3
    assert result(tmp_path)["code"] == "unreadable_source"


def test_a_second_run_in_the_same_output_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "search-config.toml").write_text('name = "m"\nversion = "0.1.0"\ndevice = "cpu"\n')
    with output_folder(tmp_path / "output"):
        done = CliRunner().invoke(app, ["train", "--job", str(job(tmp_path, benchmarking_data=None))])
    assert done.exit_code == 2
    assert "another run" in str(result(tmp_path)["message"])


def test_a_benchmark_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "search-config.toml").write_text('name = "m"\nversion = "0.1.0"\n')
    assert CliRunner().invoke(app, ["benchmark", "--job", str(job(tmp_path))]).exit_code == 3
    assert "train first" in str(result(tmp_path)["message"])


def test_help_shows_how_to_work_by_hand() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    for command in ("train", "benchmark", "classify"):
        assert f"python -m training {command}" in text
