"""Compares two models on the benchmark sets, description by description, with bootstrap intervals.

python benchmarks/training_compare.py --data ../shared/data --config new.toml --output new \
    --other-config benchmarks/search-config.toml --other-output output
"""

import argparse
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from training_figures import machine
from training_paired import Answers, differences

from training.evaluation.benchmark import make_benchmarks
from training.evaluation.loading import load_classifier
from training.evaluation.measure import measure, ranks
from training.evaluation.tables import Tables, read_tables
from training.pipeline import Overrides, read_config
from training.progress import Progress

RANKS = (1, 5)


@dataclass(frozen=True)
class Answered:
    """What a model did on each set with codes, by rank; and the figures of all sets."""

    right: dict[int, dict[str, Answers]]
    figures: dict[str, dict[str, float]]

    def __str__(self) -> str:
        return ", ".join(f"{name} {' / '.join(shown(figures))}" for name, figures in self.figures.items())


def shown(figures: dict[str, float]) -> Iterator[str]:
    names = ("top_1", "top_5", "no_result") if "top_1" in figures else ("no_result",)
    return (f"{100 * figures[name]:.1f}" for name in names)


def answers(config_file: Path, output: Path, tables: Tables) -> Answered:
    config = read_config(config_file, Overrides())
    classifier = load_classifier(config, output / "model.zip")
    quiet = Progress(log=io.StringIO())
    benchmarks, _ = make_benchmarks(tables, config, classifier.model.classes, classifier.cleaners, quiet)
    right: dict[int, dict[str, Answers]] = {rank: {} for rank in RANKS}
    figures = {}
    for one in benchmarks:
        measured = measure(one, classifier, quiet)
        figures[one.name] = measured.figures
        if one.codes is not None:
            places = np.array(ranks(one.codes, measured.results))
            for rank in RANKS:
                right[rank][one.name] = (places > 0) & (places <= rank)
    return Answered(right, figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--other-config", type=Path, required=True)
    parser.add_argument("--other-output", type=Path, required=True)
    options = parser.parse_args()
    tables = read_tables(options.data / "benchmarking_data")
    model = answers(options.config, options.output, tables)
    other = answers(options.other_config, options.other_output, tables)
    print(f"{options.data}; {machine()}; top-1 / top 5 / no result, and the refused share of vague")
    print(f"{options.output}: {model}")
    print(f"{options.other_output}: {other}")
    for rank in RANKS:
        compared = "; ".join(map(str, differences(model.right[rank], other.right[rank])))
        print(f"difference in the first {rank}, in points, with 95% intervals: {compared}")


if __name__ == "__main__":
    main()
