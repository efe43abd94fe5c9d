"""`python -m training train|benchmark --job job.json`, as a fake. It uses only the standard library.

What steers it comes from the environment:
- `FAKE_TRAINING_S`: how long a job takes, in seconds.
- `FAKE_TRAINING_CONTROL`: a folder. Each job adds a line to the file `started` there, and goes on for as long
  as the file `hold-train` or `hold-benchmark` lies there.

Every line of the log has its own number, so that a reader sees whether one is missing or was read twice.
Every `model.zip` is different, so that nobody takes the work of one training for that of another. While the
file `repeatable` lies in the folder, it follows instead from what the training reads: its code, configuration
and raw data, and the answer of `search_references_url`, which is fetched unless a snapshot of it is given. A
job whose code is removed or replaced while it runs fails, as one may that reads more of its code late.
"""

import hashlib
import io
import json
import os
import sys
import time
import tomllib
import urllib.request
import uuid
import zipfile
from datetime import UTC, datetime
from pathlib import Path

TICK_S = 0.1
CASES = '<testsuites><testsuite name="known" tests="1"><testcase name="top_1"/></testsuite></testsuites>\n'


def packed(files: dict[str, str]) -> bytes:
    """A zip of texts."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, text in files.items():
            # With a fixed time, so that the same texts give the same bytes.
            archive.writestr(zipfile.ZipInfo(name), text)
    return whole.getvalue()


def snapshot(order: dict[str, str]) -> tuple[str, bytes] | None:
    """The URL of the search references and their content. None if the configuration names no URL."""
    url = tomllib.loads(Path(order["config"]).read_text(encoding="utf-8")).get("search_references_url")
    if url is None:
        return None
    given = Path(order.get("snapshots", "")) / "search_references.json"
    if "snapshots" in order and given.is_file():
        return url, given.read_bytes()
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - the test's own server
        content = answer.read()
    folder = Path(order["output"]) / "snapshots"
    folder.mkdir(exist_ok=True)
    write(folder / given.name, content)
    return url, content


def snapshot_input(url: str, content: bytes) -> dict[str, object]:
    return {
        "kind": "additional_source",
        "name": "search_references",
        "sha256": hashlib.sha256(content).hexdigest(),
        "url": url,
        "file": "snapshots/search_references.json",
    }


def weights(order: dict[str, str], answer: bytes) -> str:
    """What stands for the weights."""
    if not (Path(os.environ["FAKE_TRAINING_CONTROL"]) / "repeatable").exists():
        return uuid.uuid4().hex
    read = (Path(__file__), Path(order["config"]), Path(order["raw_source_data"]))
    return hashlib.sha256(b"".join(path.read_bytes() for path in read) + answer).hexdigest()


def made(command: str, of: str) -> dict[str, bytes]:
    """The files that the job leaves in its output folder."""
    if command == "train":
        return {
            "model.zip": packed(
                {
                    "target/model.pt": of,
                    "target/model.toml": "input_size = 1\n",
                    "target/subheadings.json": "[]",
                }
            )
        }
    return {
        "benchmark_results.xml": CASES.encode(),
        "benchmark_results.zip": packed({"known.json": "{}"}),
        "training_report.html": b"<!doctype html><title>Training report</title>\n",
    }


def write(path: Path, content: bytes) -> None:
    """A file that exists is complete."""
    beside = path.with_name(f"{path.name}.partial")
    beside.write_bytes(content)
    beside.rename(path)


def inputs(command: str, output: Path) -> list[dict[str, object]]:
    """What shaped the result. The list of packages is a file of the output, and the same each time."""
    packages = [{"name": "fake", "version": "1.0"}, {"name": "torch", "version": "2.0"}]
    environment = json.dumps({"schema": 1, "packages": packages}).encode()
    (output / "inputs").mkdir(exist_ok=True)
    write(output / "inputs" / "python_environment.json", environment)
    found: list[dict[str, object]] = [
        {
            "kind": "python_environment",
            "name": "python 3.11.7",
            "sha256": hashlib.sha256(environment).hexdigest(),
            "content": "inputs/python_environment.json",
            "details": {"python": "3.11.7", "packages": len(packages)},
        }
    ]
    if command == "train":
        weights = hashlib.sha256(b"fake").hexdigest()
        found += [
            {
                "kind": "transformer",
                "name": "fake",
                "sha256": weights,
                "details": {"found_in": "image", "revision": "1"},
                "parts": [{"path": "model.safetensors", "sha256": weights, "size_bytes": 4}],
            },
            {"kind": "hardware", "name": "training machine", "sha256": "1" * 64, "details": {"cpu": "fake"}},
            {"kind": "determinism", "name": "seed and switches", "sha256": "2" * 64, "details": {"seed": 0}},
        ]
    return found


def work(command: str, progress: Path) -> None:
    """Log and report progress for as long as the environment says."""
    control = Path(os.environ["FAKE_TRAINING_CONTROL"])
    total = max(1, round(float(os.environ["FAKE_TRAINING_S"]) / TICK_S))
    done = 0
    while done < total or (control / f"hold-{command}").exists():
        done += 1
        sys.stdout.write(f"{command}: line {done}\n")
        sys.stdout.flush()
        if done % 10 == 0 or done == total:
            line = {
                "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "phase": command,
                "done": min(done, total),
                "total": total,
                "rate": 1 / TICK_S,
                "eta_seconds": max(0, total - done) * TICK_S,
                "metrics": {},
            }
            with progress.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        time.sleep(TICK_S)


def main(command: str, job: Path) -> None:
    """Do the job that `job.json` describes."""
    order = json.loads(job.read_text(encoding="utf-8"))
    code = Path(__file__).stat()
    with (Path(os.environ["FAKE_TRAINING_CONTROL"]) / "started").open("a", encoding="utf-8") as started:
        started.write(f"{command} {order['build_id']}\n")
    work(command, job.parent / "progress.jsonl")
    if not Path(__file__).exists() or not os.path.samestat(code, Path(__file__).stat()):
        sys.exit("The code is not the one that this job was started with.")
    output = Path(order["output"])
    fetched = snapshot(order) if command == "train" else None
    files = made(command, weights(order, fetched[1] if fetched is not None else b""))
    for name, content in files.items():
        write(output / name, content)
    result = {
        "schema": 1,
        "command": command,
        "outcome": "succeeded",
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
            for name, content in files.items()
        },
        "inputs": inputs(command, output),
        "metrics": {"loss": 0.5, "accuracy": 0.5}
        if command == "train"
        else {"known": {"count": 1, "top_1": 1.0, "top_5": 1.0, "no_result": 0.0}},
        "counts": {"classes": 2, "pairs": 20, "samples": 20, "sources": {"cn": 20}},
    }
    if fetched is not None:
        result["inputs"] = [*inputs(command, output), snapshot_input(*fetched)]
    if command == "train":
        result["data"] = {"cn": {"rows": 21, "usable": 20, "broken": 1}}
        result["epochs"] = [{"epoch": 1, "loss": 0.5, "accuracy": 0.5}]
        result["phases"] = [{"phase": "train", "seconds": 0.1}]
        result["warnings"] = ["one row is broken"]
    write(job.parent / "result.json", json.dumps(result).encode())


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("train", "benchmark") or sys.argv[2] != "--job":
        sys.exit("usage: python -m training train|benchmark --job FILE")
    main(sys.argv[1], Path(sys.argv[3]))
