"""Measures the median time of one classification on one core, after a warm-up.

python benchmarks/training_classify.py --config my-search-config.toml --output output --data ../shared/data
"""

import argparse
import io
import os
import statistics
import time
from pathlib import Path

import torch
from training_figures import PRESENT, machine

from training.evaluation.benchmark import make_benchmarks
from training.evaluation.loading import load_classifier
from training.evaluation.tables import read_tables
from training.pipeline import Overrides, read_config
from training.progress import Progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    config = read_config(options.config, Overrides())
    classifier = load_classifier(config, options.output / "model.zip")
    quiet = Progress(log=io.StringIO())
    tables = read_tables(options.data / "benchmarking_data")
    benchmarks, _ = make_benchmarks(tables, config, classifier.model.classes, classifier.cleaners, quiet)
    texts = [text for benchmark in benchmarks for text in benchmark.descriptions]
    for text in texts[:20]:
        classifier.classify(text)
    times, cpu_times = [], []
    for text in texts[:500]:
        start, cpu = time.perf_counter(), time.process_time()
        classifier.classify(text)
        times.append(1000 * (time.perf_counter() - start))
        cpu_times.append(1000 * (time.process_time() - cpu))
    print(f"present pipeline: {PRESENT['classification_ms']} ms; {PRESENT['machine']}")
    print(
        f"this one, one core: median {statistics.median(times):.1f} ms "
        f"({statistics.median(cpu_times):.1f} ms of processor time), "
        f"95% {statistics.quantiles(times, n=20)[-1]:.1f} ms; {machine()}"
    )


if __name__ == "__main__":
    main()
