"""The whole training run on the team's data: cold, then with a warm embedding cache, then the benchmark.

python benchmarks/training_run.py --data ../shared/data --config my-search-config.toml
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from training_figures import PRESENT, machine


def run(*arguments: str) -> float:
    command = [sys.executable, "-m", "training", *arguments]
    print("$ python", *command[1:], flush=True)
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args()
    print(f"present pipeline: {PRESENT['command']}; {PRESENT['data']}; {PRESENT['machine']}")
    print(f"this one: {options.config}; {options.data}; {machine()}")
    with tempfile.TemporaryDirectory() as name:
        output = Path(name) / "output"
        common = ["--config", str(options.config), "--output", str(output)]
        train = [
            "train",
            *common,
            "--raw-source-data",
            str(options.data),
            "--embedding-cache",
            f"{name}/cache",
        ]
        cold = run(*train)
        first = json.loads((output / "result.json").read_text())
        (output / "progress.jsonl").unlink()
        warm = run(*train)
        second = json.loads((output / "result.json").read_text())
        run("benchmark", *common, "--benchmarking-data", str(options.data / "benchmarking_data"))
        metrics = json.loads((output / "result.json").read_text())["metrics"]
    size = first["files"]["model.zip"]["size_bytes"]
    total = float(PRESENT["total_s"])
    print(f"\n{'':<36}{'present':>12}{'this':>12}")
    print(f"{'whole run, empty cache, s':<36}{total:>12.0f}{cold:>12.0f}   1/{total / cold:.1f}")
    print(f"{'whole run, warm cache, s':<36}{total:>12.0f}{warm:>12.0f}   1/{total / warm:.1f}")
    print(f"{'model, MB':<36}{float(PRESENT['model_bytes']) / 1e6:>12.0f}{size / 1e6:>12.1f}")
    for key in (key for key in PRESENT if " " in key):
        benchmark, figure = key.split(" ")
        print(f"{key:<36}{float(PRESENT[key]):>12.1%}{metrics[benchmark][figure]:>12.1%}")
    same = first["files"] == second["files"]
    print(f"\nmodel.zip of the warm run {'is the same, byte for byte' if same else 'DIFFERS'}")


if __name__ == "__main__":
    main()
