"""Measures a model on descriptions with known codes, and on descriptions that should get no answer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import polars as pl

from training.cleaning.cleaner import Cleaner, clean
from training.cleaning.codes import code_shape, cut
from training.cleaning.text import DROP_EMPTY, LOWER, STRIP, drop_short
from training.config import Figure, SearchConfig
from training.errors import FailureCode, TrainingError
from training.evaluation.classify import Classifier, Result
from training.files import write_zip, written_whole
from training.progress import Progress
from training.sources.rows import read_csv
from training.storable import one_line

# The version of the way in which figures are measured. It rises when the same model would get other figures,
# because only figures of the same version can be compared.
MEASUREMENT: Final = 1
SHORTEST_DROPPED: Final = 2
RANKS: Final = 5
# The levels of the nomenclature at which the first result can be right, by their digits.
_LEVELS: Final[tuple[tuple[Figure, int], ...]] = (("chapter", 2), ("heading", 4), ("subheading", 6))


@dataclass(frozen=True)
class Benchmark:
    """Descriptions with their codes, cut to the configured digits. codes is None if none should be answered.

    `left_out` counts the rows that are not measured, by reason.
    """

    name: str
    descriptions: list[str]
    codes: list[str] | None
    left_out: dict[str, int]


@dataclass(frozen=True)
class Measured:
    """The figures are shares in [0, 1] of `count`. Each chapter (two digits) has its own figures too."""

    benchmark: Benchmark
    figures: dict[str, float]
    chapters: dict[str, dict[str, float]]
    results: list[list[Result]]

    @property
    def metrics(self) -> dict[str, float]:
        return {"count": len(self.results), **self.figures, "measurement": MEASUREMENT}

    def to_json(self) -> str:
        codes: Sequence[str | None] = self.benchmark.codes or [None] * len(self.results)
        content: dict[str, Any] = {
            "schema": 1,
            "benchmark": self.benchmark.name,
            "metrics": self.metrics,
            "chapters": self.chapters,
            "left_out": self.benchmark.left_out,
            "predictions": [
                {
                    "description": description,
                    "code": code,
                    "results": [
                        {"code": result.code, "score": round(result.score, 6)} for result in results[:RANKS]
                    ],
                }
                for description, code, results in zip(
                    self.benchmark.descriptions, codes, self.results, strict=True
                )
            ],
        }
        return json.dumps(content, ensure_ascii=False, indent=1)


def read_benchmarks(folder: Path, digits: int, limit: int | None = None) -> list[Benchmark]:
    """Read every CSV in the folder and its subfolders. Raises `missing_benchmark` if there is none."""
    files = sorted(folder.rglob("*.csv"), key=lambda path: path.relative_to(folder).as_posix())
    if not files:
        raise TrainingError(
            FailureCode.MISSING_BENCHMARK,
            "benchmarking_data.zip has no *.csv file. Add one for each benchmark, with the columns "
            "description and code, or with descriptions only if none of them should get an answer.",
        )
    stems = [path.stem for path in files]
    return [
        read_benchmark(
            path,
            # Names go into JSON and XML, which have no control characters.
            one_line(
                path.stem
                if stems.count(path.stem) == 1
                else "-".join(path.relative_to(folder).with_suffix("").parts)
            ),
            digits,
            limit,
        )
        for path in files
    ]


def read_benchmark(path: Path, name: str, digits: int, limit: int | None = None) -> Benchmark:
    """Descriptions with several codes are left out and counted, as no answer to them is right or wrong."""
    found = read_csv(path, "utf-8", columns=1, header="auto", code_column=None)
    has_codes = any(len(row) > 1 and row[1].strip() for _, row in found.rows)
    rows = [row for _, row in found.rows if len(row) > 1 or not has_codes]
    broken = len(found.broken) + len(found.rows) - len(rows)
    frame = pl.DataFrame(
        {
            "code": ["".join(row[1].split()) if has_codes else "" for row in rows],
            "description": [row[0] for row in rows],
        },
        schema={"code": pl.String, "description": pl.String},
    )
    if limit is not None:
        frame = frame.head(limit)
    shape: list[Cleaner] = [code_shape(digits), cut(digits)] if has_codes else []
    cleaned = clean(frame, [LOWER, STRIP, DROP_EMPTY, drop_short(SHORTEST_DROPPED), *shape])
    left_out = dict(cleaned.reasons)
    if broken:
        left_out["broken row"] = broken
    distinct = cleaned.kept.unique().sort("description", "code")
    ambiguous = distinct.filter(pl.len().over("description") > 1)
    if ambiguous.height:
        left_out["ambiguous"] = ambiguous["description"].n_unique()
    distinct = distinct.join(ambiguous, on="description", how="anti").sort("description")
    if repeated := cleaned.kept.height - distinct.height - ambiguous.height:
        left_out["repeated"] = repeated
    if not distinct.height:
        raise TrainingError(
            FailureCode.MISSING_BENCHMARK,
            f"{path.name} has no row that can be measured. Left out, by reason: {left_out}",
        )
    codes = distinct["code"].to_list() if has_codes else None
    return Benchmark(name, distinct["description"].to_list(), codes, left_out)


def measure(benchmark: Benchmark, classifier: Classifier, progress: Progress) -> Measured:
    results = classifier.classify_all(benchmark.descriptions, progress)
    if benchmark.codes is None:
        return Measured(benchmark, _refusals(results), {}, results)
    by_chapter: dict[str, list[int]] = {}
    for index, code in enumerate(benchmark.codes):
        by_chapter.setdefault(code[:2], []).append(index)
    chapters = {
        chapter: {
            "count": len(rows),
            **_figures([benchmark.codes[row] for row in rows], [results[row] for row in rows]),
        }
        for chapter, rows in sorted(by_chapter.items())
    }
    return Measured(benchmark, _figures(benchmark.codes, results), chapters, results)


def _refusals(results: Sequence[Sequence[Result]]) -> dict[str, float]:
    return {"no_result": _share(sum(not found for found in results), len(results))}


def _figures(codes: Sequence[str], results: Sequence[Sequence[Result]]) -> dict[str, float]:
    """`top_3` is the share of codes among the first three results. Levels compare the first result only."""
    count = len(codes)
    ranks = [
        next((rank for rank, result in enumerate(found, start=1) if result.code == code), 0)
        for code, found in zip(codes, results, strict=True)
    ]
    figures = {
        f"top_{limit}": _share(sum(0 < rank <= limit for rank in ranks), count)
        for limit in range(1, RANKS + 1)
    }
    figures["not_found"] = _share(sum(not 0 < rank <= RANKS for rank in ranks), count)
    figures |= _refusals(results)
    for level, digits in _LEVELS:
        right = sum(
            bool(found) and found[0].code[:digits] == code[:digits]
            for code, found in zip(codes, results, strict=True)
        )
        figures[level] = _share(right, count)
    return figures


def _share(count: int, total: int) -> float:
    return round(count / total, 6)


def write_results(output: Path, measured: Sequence[Measured], config: SearchConfig) -> list[Path]:
    """Write `benchmark_results.xml` and `.zip`. Their bytes depend only on the results."""
    xml = output / "benchmark_results.xml"
    with written_whole(xml) as beside:
        tree = junit(measured, config)
        ET.indent(tree)
        tree.write(beside, encoding="utf-8", xml_declaration=True)
    archive = output / "benchmark_results.zip"
    write_zip(archive, [(f"{one.benchmark.name}.json", one.to_json().encode()) for one in measured])
    return [xml, archive]


def junit(measured: Sequence[Measured], config: SearchConfig) -> "ET.ElementTree[ET.Element]":
    """One test suite for each benchmark, one test case for each figure, which fails below its floor."""
    root = ET.Element("testsuites", name=f"{config.name} {config.version}")
    for one in measured:
        name = one.benchmark.name
        suite = ET.SubElement(root, "testsuite", name=name)
        properties = ET.SubElement(suite, "properties")
        for key, value in [
            ("count", len(one.results)),
            ("measurement", MEASUREMENT),
            *((f"left_out.{reason}", count) for reason, count in sorted(one.benchmark.left_out.items())),
        ]:
            ET.SubElement(properties, "property", name=key, value=str(value))
        failures = 0
        for figure, share in one.figures.items():
            failures += _case(suite, name, figure, share, len(one.results), config)
        for chapter, figures in one.chapters.items():
            case = ET.SubElement(suite, "testcase", classname=f"{name}.chapter_{chapter}", name="top_1")
            ET.SubElement(case, "system-out").text = f"{figures['top_1']:.4f} of {figures['count']:.0f}"
        suite.set("tests", str(len(suite.findall("testcase"))))
        suite.set("failures", str(failures))
    return ET.ElementTree(root)


def _case(
    suite: ET.Element, benchmark: str, figure: str, share: float, count: int, config: SearchConfig
) -> int:
    case = ET.SubElement(suite, "testcase", classname=benchmark, name=figure)
    floor = config.floor(benchmark, figure)
    failed = share < floor
    if failed:
        message = f"{figure} is {share:.4f}, below the floor of {floor:.4f}"
        ET.SubElement(case, "failure", message=message).text = message
    ET.SubElement(case, "system-out").text = f"{share:.4f} of {count}"
    return int(failed)
