"""Measures a whole training run on the team's data, first with an empty and then with a warm embedding cache.

python benchmarks/training_run.py --data ../shared/data
python benchmarks/training_run.py --data ../shared/data --digits 8
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from training_figures import PRESENT, PRESENT_MODEL_BYTES, PRESENT_TOTAL_S, machine

CONFIG = Path(__file__).parent / "search-config.toml"


def run(*arguments: str) -> float:
    command = [sys.executable, "-m", "training", *arguments]
    print("$ python", *command[1:], flush=True)
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def phases(output: Path) -> str:
    """The time that each phase took, from its last line. Removes the progress for another run."""
    lines = (output / "progress.jsonl").read_text().splitlines()
    (output / "progress.jsonl").unlink()
    last = {line["phase"]: line for line in map(json.loads, lines)}
    took = {name: line["done"] / line["rate"] for name, line in last.items() if line["rate"]}
    return ", ".join(f"{name} {seconds:.0f} s ({last[name]['done']:,})" for name, seconds in took.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--digits", type=int, choices=(6, 8), default=6)
    parser.add_argument(
        "--verify", action="store_true", help="only train twice and compare the models, with --verify"
    )
    parser.add_argument("--keep", type=Path, help="a folder in which the output is kept")
    options = parser.parse_args()
    print(f"present pipeline: {PRESENT['command']}; {PRESENT['data']}; {PRESENT['machine']}")
    print(f"this one: {options.config}, {options.digits} digits; {options.data}; {machine()}")
    with tempfile.TemporaryDirectory() as name:
        output = options.keep or Path(name) / "output"
        config = Path(name) / "search-config.toml"
        text = options.config.read_text()
        text, lines = re.subn(r"^digits = \d", f"digits = {options.digits}", text, flags=re.MULTILINE)
        if lines != 1:
            parser.error(f"{options.config} has no line such as: digits = 6")
        config.write_text(text)
        common = ["--config", str(config), "--output", str(output)]
        train = ["train", *common, "--raw-source-data", str(options.data)]
        if options.verify:
            print(f"{run(*train, '--verify'):.0f} s; both trainings gave the same bytes")
            return
        train += ["--embedding-cache", f"{name}/cache"]
        cold = run(*train)
        first = json.loads((output / "result.json").read_text())
        print(phases(output))
        warm = run(*train)
        second = json.loads((output / "result.json").read_text())
        print(phases(output))
        run("benchmark", *common, "--benchmarking-data", str(options.data / "benchmarking_data"))
        metrics = json.loads((output / "result.json").read_text())["metrics"]
    size = first["files"]["model.zip"]["size_bytes"]
    total, weights = PRESENT_TOTAL_S[options.digits], PRESENT_MODEL_BYTES[options.digits]
    print(f"\n{'':<36}{'present':>12}{'this':>12}")
    print(f"{'whole run, empty cache, s':<36}{total:>12.0f}{cold:>12.0f}   1/{total / cold:.1f}")
    print(f"{'whole run, warm cache, s':<36}{total:>12.0f}{warm:>12.0f}   1/{total / warm:.1f}")
    print(f"{'model, MB':<36}{weights / 1e6:>12.0f}{size / 1e6:>12.1f}   1/{weights / size:.1f}")
    for benchmark, figures in metrics.items():
        for figure in ("top_1", "top_5", "no_result"):
            if figure in figures:
                key = f"{benchmark} {figure}"
                known = f"{float(PRESENT[key]):.1%}" if options.digits == 6 and key in PRESENT else "unknown"
                print(f"{key:<36}{known:>12}{figures[figure]:>12.1%}")
    same = first["files"] == second["files"]
    print(f"\nmodel.zip of the warm run {'is the same, byte for byte' if same else 'DIFFERS'}")


if __name__ == "__main__":
    main()
