"""The pipeline with a real transformer on tens of rows, run as the worker runs it."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from local.simcloud.processes import carrying
from tests.integration.training import existing_validation
from training.cli import app
from training.config import parse_config, toml_document
from training.evaluation.measure import MEASUREMENT

REPOSITORY = Path(__file__).resolve().parents[3]

GOODS = {
    "010121": ["pure-bred breeding horses", "thoroughbred stallion", "breeding mare"],
    "040610": ["fresh cheese", "cottage cheese", "unripened curd"],
    "610910": ["cotton t-shirts, knitted", "mens cotton t shirt", "tee shirt of cotton"],
    "640399": ["leather shoes", "brown leather brogues", "shoes with leather uppers"],
    "851610": ["electric water heaters", "electric kettle", "immersion heater"],
    "950300": ["toys, dolls and puzzles", "plastic toy car", "teddy bear"],
}

CONFIG = """
name = "small"
version = "0.1.0"
digits = 6
device = "cpu"
hidden_size = 64
max_epochs = 30
model_batch_size = 8
learning_rate = 0.01
embedding_scale = 10.0
cn_data_file = "reference_data/cn_self_text.csv"
vague_terms_data_file = "reference_data/vague_terms.csv"
vague_terms_regex_file = "reference_data/vague_terms_patterns.txt"
search_references_file = "reference_data/search_references.json"
tradesets_data_dir = "raw_source_data/tradesets_descriptions"
[benchmark_floors.everyday]
top_1 = 0.5
"""


def write_inputs(folder: Path) -> None:
    texts = "".join(f'{code}0000,{code}00,"{names[0]}"\n' for code, names in GOODS.items())
    trade = "".join(f'{code}00,"{names[1]}"\n' for code, names in GOODS.items())
    everyday = "".join(f'"{names[2]}",{code}0000\n' for code, names in GOODS.items())
    raw = {
        "reference_data/cn_self_text.csv": f"CNKEY,CN_CODE,NAME_EN\n{texts}",
        "reference_data/vague_terms.csv": "description\ngoods\nmisc items\nblue large\n",
        "reference_data/vague_terms_patterns.txt": "# comment\n^consolidated .*$\n",
        "reference_data/search_references.json": json.dumps({"brogues": "6403990000"}),
        "raw_source_data/tradesets_descriptions/one.csv": f"CMDTYCODE,GDSDESC\n{trade}01012100,12345\n",
    }
    known = "".join(f'"{name}",{code}0000\n' for code, names in GOODS.items() for name in names)
    benchmarks = {
        "benchmarking_data/classified.csv": f"Goods Description,Commodity Code\n{known}",
        "benchmarking_data/good-goods-descriptions.csv": f"Goods Description,Commodity Code\n{everyday}",
        "benchmarking_data/everyday.csv": f"Goods Description,Commodity Code\n{everyday}",
        "benchmarking_data/vague.csv": "Goods Description\nmisc items\nconsolidated colli 5\n",
    }
    for name, files in (("raw_source_data.zip", raw), ("benchmarking_data.zip", benchmarks)):
        with zipfile.ZipFile(folder / name, "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
    (folder / "search-config.toml").write_text(CONFIG)


def start(
    build: Path,
    command: str,
    more: dict[str, str] | None = None,
    repository: Path = REPOSITORY,
    **environment: str,
) -> subprocess.Popen[str]:
    """Start `python -m training <command> --job …` with a job folder, as the contract says.

    `more` are further keys of the job.
    """
    folder = build / command
    folder.mkdir(exist_ok=True)
    job = {
        "schema": 1,
        "build_id": "b",
        "prefix": "0.1.0-0000000",
        "sha": "0" * 40,
        "config": str(build / "search-config.toml"),
        "raw_source_data": str(build / "raw_source_data.zip"),
        "benchmarking_data": str(build / "benchmarking_data.zip"),
        "output": str(build / "output"),
        **(more or {}),
    }
    (folder / "job.json").write_text(json.dumps(job))
    return subprocess.Popen(
        [sys.executable, "-m", "training", command, "--job", str(folder / "job.json")],
        cwd=repository,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(
    build: Path, command: str, repository: Path = REPOSITORY, **environment: str
) -> subprocess.CompletedProcess[str]:
    with start(build, command, None, repository, **environment) as process:
        out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def result(build: Path, command: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((build / command / "result.json").read_text())
    return content


def run_here(folder: Path, command: str, *options: str) -> str:
    """Run a command by hand, in this process, which has loaded the libraries. Returns its output."""
    config = ("--config", str(folder / "search-config.toml"), "--output", str(folder / "output"))
    done = CliRunner().invoke(app, [command, *config, *options])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build whose training and benchmark have succeeded. Its embeddings are in the folder `cache`."""
    folder = tmp_path_factory.mktemp("build")
    write_inputs(folder)
    for command in ("train", "benchmark"):
        done = run(folder, command, TRAINING_EMBEDDING_CACHE=str(folder / "cache"))
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_training_writes_a_model_a_result_and_progress(build: Path) -> None:
    trained = result(build, "train")
    model = build / "output" / "model.zip"
    assert trained["outcome"] == "succeeded"
    assert trained["files"]["model.zip"]["size_bytes"] == model.stat().st_size
    reported = {one["kind"]: one for one in trained["inputs"]}
    assert set(reported) == {"transformer", "python_environment", "hardware", "determinism"}
    assert reported["determinism"]["details"]["deterministic_algorithms"] is True
    assert reported["determinism"]["details"]["seed"] == 0
    assert reported["hardware"]["details"]["cpu"]
    assert {one["path"] for one in reported["transformer"]["parts"]} >= {"modules.json", "config.json"}
    assert trained["counts"]["classes"] == 7
    # The registry compares these with those of the model before.
    assert trained["counts"]["pairs"] > 7
    assert all(rows > 0 for rows in trained["counts"]["sources"].values())
    assert len(trained["counts"]["sources"]) > 0
    assert trained["counts"]["dropped_rows"] == 1
    assert set(trained["metrics"]) == {"loss", "accuracy"}
    # Every value that was used, so that the registry can publish them.
    assert parse_config(toml_document(trained["config"])) == parse_config(CONFIG)
    assert [one["epoch"] for one in trained["epochs"]] == list(range(1, 31))
    assert trained["epochs"][-1]["loss"] == trained["metrics"]["loss"]
    phases = [one["phase"] for one in trained["phases"]]
    assert phases == ["clean", "embed", "train", "package"]
    assert all(one["seconds"] >= 0 for one in trained["phases"])
    lines = [json.loads(line) for line in (build / "train" / "progress.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(line["phase"] for line in lines)) == ["clean", "embed", "train", "package"]
    assert all(line["done"] <= line["total"] for line in lines)


def test_the_model_loads_as_plain_linear_layers(build: Path) -> None:
    with zipfile.ZipFile(build / "output" / "model.zip") as archive:
        weights = torch.load(io.BytesIO(archive.read("target/model.pt")), weights_only=True)
        classes = json.loads(archive.read("target/subheadings.json"))
    assert weights["fc1.weight"].shape == (64, 384)
    assert weights["fc2.weight"].shape == (7, 64)
    assert classes == [*sorted(GOODS), "vvvvvvvvvv"]


def test_the_benchmark_measures_every_set(build: Path) -> None:
    metrics = result(build, "benchmark")["metrics"]
    assert metrics["everyday"]["count"] == 6
    assert metrics["everyday"]["top_1"] >= 0.5
    assert metrics["vague"] == {"count": 2, "no_result": 1.0, "measurement": MEASUREMENT}
    assert (build / "output" / "benchmark_results.xml").is_file()


def test_the_teams_validation_compares_all_its_thresholds_and_recognises_a_bad_model(
    build: Path, tmp_path: Path
) -> None:
    write_inputs(tmp_path)
    config = CONFIG.replace("max_epochs = 30", "max_epochs = 1").replace("rate = 0.01", "rate = 0.00001")
    (tmp_path / "search-config.toml").write_text(config)
    cache = ("--embedding-cache", str(build / "cache"))
    run_here(tmp_path, "train", "--raw-source-data", str(tmp_path / "raw_source_data.zip"), *cache)
    run_here(tmp_path, "benchmark", "--benchmarking-data", str(tmp_path / "benchmarking_data.zip"))
    good, bad = (folder / "output" / "benchmark_results.zip" for folder in (build, tmp_path))
    compared = existing_validation.compare(old=good, new=bad)
    assert compared.skipped == []
    assert {"Classified top 1", "Accuracy"} <= set(compared.high)
    # It names the descriptions that the bad model lost, and gains none.
    assert len(compared.lost["Classified top 1"]) > len(GOODS)
    same = existing_validation.compare(old=good, new=good)
    assert (same.skipped, same.high, same.medium, same.low) == ([], [], [], [])


def test_the_output_folder_contains_only_the_results(build: Path) -> None:
    names = {path.name for path in (build / "output").iterdir()}
    assert names == {
        "model.zip",
        "benchmark_results.xml",
        "benchmark_results.zip",
        "training_report.html",
        "inputs",
    }


def test_training_and_benchmark_report_one_environment_with_its_packages(build: Path) -> None:
    trained, measured = (
        next(one for one in result(build, command)["inputs"] if one["kind"] == "python_environment")
        for command in ("train", "benchmark")
    )
    assert trained == measured
    content = (build / "output" / trained["content"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == trained["sha256"]
    packages = {one["name"]: one["version"] for one in json.loads(content)["packages"]}
    assert packages["torch"] == torch.__version__
    assert len(packages) == trained["details"]["packages"]


def test_a_run_after_a_killed_one_with_another_hash_seed_and_zip_order_gives_the_same_bytes(
    build: Path, tmp_path: Path
) -> None:
    write_inputs(tmp_path)
    with zipfile.ZipFile(build / "raw_source_data.zip") as archive:
        names = sorted(archive.namelist(), reverse=True)
        with zipfile.ZipFile(tmp_path / "raw_source_data.zip", "w") as again:
            for name in names:
                again.writestr(name, archive.read(name))
    # What a training leaves that a reboot has ended.
    (tmp_path / "output" / ".temporary-raw-source-data-1" / "reference_data").mkdir(parents=True)
    (tmp_path / "output" / ".model.zip.0123456789abcdef.tmp").write_bytes(b"half")
    assert run(tmp_path, "train", PYTHONHASHSEED="7").returncode == 0
    assert result(tmp_path, "train")["files"] == result(build, "train")["files"]
    assert {path.name for path in (tmp_path / "output").iterdir()} == {"model.zip", "inputs"}


def test_training_and_benchmark_with_8_digits(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    (tmp_path / "search-config.toml").write_text(CONFIG.replace("digits = 6", "digits = 8"))
    run_here(tmp_path, "train", "--raw-source-data", str(tmp_path / "raw_source_data.zip"))
    with zipfile.ZipFile(tmp_path / "output" / "model.zip") as archive:
        classes = json.loads(archive.read("target/subheadings.json"))
    assert classes == [*(f"{code}00" for code in sorted(GOODS)), "vvvvvvvvvv"]
    run_here(tmp_path, "benchmark", "--benchmarking-data", str(tmp_path / "benchmarking_data.zip"))
    assert result(tmp_path, "output")["metrics"]["everyday"]["top_1"] >= 0.5


def test_a_worktree_elsewhere_trains_with_its_own_code(build: Path, tmp_path: Path) -> None:
    worktree = tmp_path / "worktree"
    shutil.copytree(REPOSITORY / "training", worktree / "training")
    (worktree / "training" / "cli.py").write_text("raise SystemExit(77)\n")
    assert run(build, "other", worktree).returncode == 77


def weights(build: Path) -> dict[str, torch.Tensor]:
    with zipfile.ZipFile(build / "output" / "model.zip") as archive:
        content = io.BytesIO(archive.read("target/model.pt"))
    loaded: dict[str, torch.Tensor] = torch.load(content, weights_only=True)
    return loaded


def test_a_training_that_is_ended_and_killed_goes_on_to_the_same_bytes(build: Path, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    config = CONFIG.replace("max_epochs = 30", "max_epochs = 1000\ncheckpoint_minutes = 0.001")
    (tmp_path / "search-config.toml").write_text(config)
    checkpoints, mark = tmp_path / "checkpoints", f"OF_THIS_TEST={tmp_path}"

    def started() -> subprocess.Popen[str]:
        """A training that has written a checkpoint."""
        before = set(checkpoints.glob("*.pt"))
        process = start(
            tmp_path,
            "train",
            {"checkpoints": str(checkpoints)},
            TRAINING_EMBEDDING_CACHE=str(build / "cache"),
            OF_THIS_TEST=str(tmp_path),
        )
        deadline = time.monotonic() + 120
        while set(checkpoints.glob("*.pt")) <= before:
            assert time.monotonic() < deadline, "it wrote no checkpoint"
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        return process

    with started() as process:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 6
    assert result(tmp_path, "train")["code"] == "interrupted"
    with started() as process:
        for number in carrying(mark):
            os.kill(number, signal.SIGKILL)
        process.communicate(timeout=60)
    with started() as process:
        said, err = process.communicate(timeout=240)
    assert process.returncode == 0, said + err
    assert "network 1 of 1: goes on from a checkpoint" in said
    assert list(checkpoints.iterdir()) == []
    resumed = (tmp_path / "output" / "model.zip").read_bytes()
    cache = ("--embedding-cache", str(build / "cache"))
    run_here(tmp_path, "train", "--raw-source-data", str(tmp_path / "raw_source_data.zip"), *cache)
    assert (tmp_path / "output" / "model.zip").read_bytes() == resumed


def test_two_processes_train_the_same_model_as_one(tmp_path: Path) -> None:
    """Uses torchrun and gloo. There is no dropout, because each process would draw its own."""
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        write_inputs(folder)
        config = CONFIG.replace("max_epochs = 30", "max_epochs = 5").replace("rate = 0.01", "rate = 0.001")
        config = config.replace(
            "digits = 6",
            "digits = 6\nmodel_dropout_layer_1_percentage = 0.0\nmodel_dropout_layer_2_percentage = 0.0\n"
            f'precision = "float32"\nprocesses = {processes}',
        )
        (folder / "search-config.toml").write_text(config)
    cache = ("--embedding-cache", str(tmp_path / "1" / "cache"))
    run_here(
        tmp_path / "1", "train", "--raw-source-data", str(tmp_path / "1" / "raw_source_data.zip"), *cache
    )
    done = run(tmp_path / "2", "train", TRAINING_EMBEDDING_CACHE=str(tmp_path / "2" / "cache"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "leaked" not in done.stderr
    # Packs are named by their content, so the embeddings are the same to the last bit.
    packs = [sorted(path.name for path in (tmp_path / name).rglob("*.pack")) for name in ("1", "2")]
    assert len(packs[0]) == 1
    assert packs[0] == packs[1]
    one, two = (weights(tmp_path / name) for name in ("1", "2"))
    assert all(torch.allclose(one[name], two[name], atol=1e-3) for name in one)
    for key in ("loss", "accuracy"):
        alone = result(tmp_path / "1", "output")["metrics"][key]
        together = result(tmp_path / "2", "train")["metrics"][key]
        assert together == pytest.approx(alone, abs=1e-3)
    lines = (tmp_path / "2" / "train" / "progress.jsonl").read_text().splitlines()
    phases = dict.fromkeys(json.loads(line)["phase"] for line in lines)
    assert list(phases) == ["clean", "embed", "train", "package"]


def test_a_failure_under_torchrun_keeps_its_exit_status(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    config = CONFIG.replace("vague_terms.csv", "vaguer_terms.csv")
    config = config.replace("digits = 6", "digits = 6\nprocesses = 2")
    (tmp_path / "search-config.toml").write_text(config)
    assert run(tmp_path, "train").returncode == 3
    assert result(tmp_path, "train")["code"] == "missing_source"


def test_out_of_memory_is_reported_when_one_of_several_processes_is_killed(
    build: Path, tmp_path: Path
) -> None:
    write_inputs(tmp_path)
    config = CONFIG.replace("max_epochs = 30", "max_epochs = 10000")
    (tmp_path / "search-config.toml").write_text(config.replace("digits = 6", "digits = 6\nprocesses = 2"))
    mark = f"OF_THIS_TEST={tmp_path}"
    # With all embeddings in the cache, no process pool has to be started first.
    cache = str(build / "cache")
    with start(tmp_path, "train", OF_THIS_TEST=str(tmp_path), TRAINING_EMBEDDING_CACHE=cache) as process:
        progress = tmp_path / "train" / "progress.jsonl"
        deadline = time.monotonic() + 120
        while not progress.is_file() or '"train"' not in progress.read_text():
            assert time.monotonic() < deadline, "it never trained"
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        for number in carrying(mark) & carrying("RANK=1"):
            os.kill(number, signal.SIGKILL)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 5, said
    left = result(tmp_path, "train")
    assert (left["command"], left["code"]) == ("train", "out_of_memory")
    assert "Process 1 of 2 was killed by SIGKILL" in left["message"]
    assert not carrying(mark)


def test_classify_by_hand(build: Path) -> None:
    shown = run_here(build, "classify", "electric kettle", "goods", "brogues", "[/x] a\nb")
    assert "[/x] a?b" in shown
    assert "851610" in shown
    assert "too vague" in shown
    assert "640399" in shown


def test_a_missing_source_fails_with_its_code_and_leaves_no_model(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    config = (tmp_path / "search-config.toml").read_text()
    (tmp_path / "search-config.toml").write_text(config.replace("vague_terms.csv", "vaguer_terms.csv"))
    assert run(tmp_path, "train").returncode == 3
    failed = result(tmp_path, "train")
    assert (failed["outcome"], failed["code"]) == ("failed", "missing_source")
    assert "vaguer_terms.csv" in failed["message"]
    assert list((tmp_path / "output").iterdir()) == []
