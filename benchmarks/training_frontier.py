"""Shows how many descriptions a model answers and refuses as the bias of the vague class changes.

This shows what a model can do. It must not be used to choose the bias, which is for a validation set.

python benchmarks/training_frontier.py --config my-search-config.toml --output output --data ../shared/data
"""

import argparse
import io
from pathlib import Path

import torch
from training_figures import PRESENT, machine

from training.config import VAGUE_CODE
from training.evaluation.benchmark import make_benchmarks
from training.evaluation.loading import load_classifier
from training.evaluation.measure import measure
from training.evaluation.tables import read_tables
from training.pipeline import Overrides, read_config
from training.progress import Progress

BIASES = (0.5, 0.25, 0.0, -0.25, -0.5, -1.0, -2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    print(f"{options.config}; {options.data}; {machine()}")
    config = read_config(options.config, Overrides())
    classifier = load_classifier(config, options.output / "model.zip")
    quiet = Progress(log=io.StringIO())
    tables = read_tables(options.data / "benchmarking_data")
    benchmarks, _ = make_benchmarks(tables, config, classifier.model.classes, classifier.cleaners, quiet)
    model = classifier.model
    bias = model.network.fc2.bias
    index = model.classes.index(VAGUE_CODE)
    start = bias[index].item()
    print("| bias | " + " | ".join(benchmark.name for benchmark in benchmarks) + " |")
    print("| --- |" + " --- |" * len(benchmarks))
    for change in BIASES:
        with torch.no_grad():
            bias[index] = start + change
        cells = []
        for benchmark in benchmarks:
            figures = measure(benchmark, classifier, quiet).figures
            shown = ("top_1", "top_5", "no_result") if "top_1" in figures else ("no_result",)
            cells.append(" / ".join(f"{100 * figures[figure]:.1f}" for figure in shown))
        print(f"| {change:+.2f} | " + " | ".join(cells) + " |", flush=True)
    print("present pipeline:", {key: value for key, value in PRESENT.items() if " " in key})


if __name__ == "__main__":
    main()
