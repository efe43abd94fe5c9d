"""How long the service itself takes from the post of a build until its training has started.

    python -m benchmarks.overhead                    twenty builds, one after the other
    python -m benchmarks.overhead --load 2           beside two processes that each keep a core busy

The API and a worker run as processes of their own, with the default settings, on an embedded Postgres and
the simulated AWS. A simulated instance boots in a moment, so what is measured is the work of the service:
the post, the queue, every step before the training, and the polling. On AWS, the boot of an instance comes
on top.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import httpx

from benchmarks.fault_lab import CONFIG, Lab, Scene, busy

LIMIT_S = 1.0
_POLL_S = 0.002


@contextmanager
def _api(scene: Scene) -> Iterator[httpx.Client]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (scene.lab.folder / "api.log").open("wb")
    environment = scene.environment() | {"REGISTRY_ACCESS": "open"}
    command = [sys.executable, "-m", "app", "api", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=Path(__file__).parents[1], env=environment, stdout=log, stderr=log
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            scene.wait(lambda: _answers(client), 60, "the API")
            yield client
    finally:
        process.terminate()
        process.wait()
        log.close()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _try(scene: Scene, client: httpx.Client, number: int) -> tuple[float, dict[str, float]]:
    """Seconds from the post to the training, and those of each step before it."""
    config = CONFIG.format(version=f"0.1.{number}")
    wanted = {"sha": scene.lab.repository.commit(config), "branch": "main", "search_config": config}
    began = time.monotonic()
    answer = client.post("/builds", json=wanted)
    answer.raise_for_status()
    build_id = answer.json()["build"]["id"]
    control = scene.lab.control
    while build_id not in control.starts("train"):
        if time.monotonic() - began > 60:
            sys.exit(f"The training of {build_id} did not start within 60 s.")
        time.sleep(_POLL_S)
    seconds = time.monotonic() - began
    scene.wait(
        lambda: client.get(f"/builds/{build_id}").json()["state"] == "succeeded", 60, "the build's end"
    )
    steps = client.get(f"/builds/{build_id}").json()["steps"]
    took = {step["name"]: _between(step["started_at"], step["finished_at"]) for step in steps}
    names = list(took)
    return seconds, {name: took[name] for name in names[: names.index("train")]}


def _between(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--tries", type=int, default=20)
    options.add_argument("--load", type=int, default=0, help="processes that keep a core busy meanwhile")
    chosen = options.parse_args()
    took: list[float] = []
    steps: dict[str, list[float]] = {}
    with Lab() as lab, lab.scene() as scene, _api(scene) as client:
        scene.start_worker(quick=False)
        # The first build finds a worker that has not imported everything yet.
        scene.wait(lambda: scene.row().ended, 120, "the first build's end")
        with busy(chosen.load):
            for number in range(chosen.tries):
                seconds, parts = _try(scene, client, number)
                took.append(seconds)
                for name, part in parts.items():
                    steps.setdefault(name, []).append(part)
    for name, parts_s in steps.items():
        print(f"{name:22} median {statistics.median(parts_s):6.3f} s")
    median = statistics.median(took)
    print(
        f"{len(took)} builds on {os.cpu_count()} cores, {chosen.load} busy processes beside them: "
        f"from the post to the training median {median:.2f} s ({min(took):.2f} to {max(took):.2f}), "
        f"at most {LIMIT_S:.0f} s wanted"
    )
    return 0 if median <= LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
