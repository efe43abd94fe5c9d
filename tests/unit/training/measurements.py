"""Benchmarks as a model might have answered them, with texts that must stay texts."""

from training.config import parse_config
from training.evaluation.benchmark import Benchmark
from training.evaluation.classify import Result
from training.evaluation.measure import Measured
from training.network.standing import Epoch

CONFIG = parse_config(
    'name = "m"\nversion = "0.1.0"\ndigits = 6\n[benchmark_floors.everyday]\ntop_1 = 0.9\nchapter = 0.1\n'
)
EPOCHS = (Epoch(2.5, 0.4), Epoch(1.25, 0.7))
HOSTILE = '<script src="https://example.org/x.js">alert(1)</script>'
# Description, code, first result, score.
ROWS = (
    ("leather shoes", "640399", "640399", 0.95),
    ("rubber boots", "640192", "640192", 0.85),
    (HOSTILE, "640399", "420292", 0.75),
    ("leather bags $x^2$ & more", "420292", "640399", 0.65),
    ("a suitcase", "420212", None, 0.0),
    ("long " * 100, "420212", "640399", 0.35),
)


def coded(name: str = "everyday") -> Measured:
    benchmark = Benchmark(
        name, [row[0] for row in ROWS], [row[1] for row in ROWS], {'language "<b>french"': 1200}
    )
    results = [[] if code is None else [Result(code, score)] for _, _, code, score in ROWS]
    figures = {"top_1": 0.333333, "top_5": 0.333333, "no_result": 0.166667, "chapter": 0.333333}
    chapters = {
        "42": {"count": 3, "top_1": 0.0, "top_5": 0.0},
        "64": {"count": 3, "top_1": 0.666667, "top_5": 0.666667},
    }
    return Measured(benchmark, figures, chapters, results)


def vague() -> Measured:
    benchmark = Benchmark(f"vague {HOSTILE}", ["goods", "parts", "shoes"], None, {})
    return Measured(benchmark, {"no_result": 0.666667}, {}, [[], [], [Result("640399", 0.42)]])
