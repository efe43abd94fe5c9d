"""Writes `benchmark_results.xml` and `benchmark_results.zip`. Their bytes depend only on the results."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

from training.config import SearchConfig, name_in_existing_tools
from training.evaluation.classify import Result
from training.evaluation.measure import MEASUREMENT, RANKS, Measured, ranks, right_at
from training.files import write_zip, written_whole
from training.network.standing import Epoch
from training.storable import xml_text

# Where the team's validation looks for the files that it compares.
_TEAMS_FOLDER: Final = "benchmarking_data/results"


def write_results(
    output: Path, measured: Sequence[Measured], config: SearchConfig, epochs: Sequence[Epoch]
) -> list[Path]:
    """Write both files. `epochs` are those of the training, if the model knows them."""
    xml = output / "benchmark_results.xml"
    with written_whole(xml) as beside:
        tree = junit(measured, config)
        ET.indent(tree)
        tree.write(beside, encoding="utf-8", xml_declaration=True)
    archive = output / "benchmark_results.zip"
    own = [(f"{one.benchmark.name}.json", to_json(one)) for one in measured]
    files = [*own, *files_for_existing_tools(measured, epochs)]
    write_zip(archive, [(name, _written(content).encode()) for name, content in files])
    return [xml, archive]


def to_json(one: Measured) -> dict[str, Any]:
    """All about one benchmark."""
    benchmark = one.benchmark
    codes: Sequence[str | None] = benchmark.codes or [None] * len(one.results)
    return {
        "schema": 1,
        "benchmark": benchmark.name,
        "metrics": one.metrics,
        "chapters": one.chapters,
        "left_out": benchmark.left_out,
        **benchmark.noted,
        "predictions": [
            {"description": description, "code": code, "results": _predictions(results)}
            for description, code, results in zip(benchmark.descriptions, codes, one.results, strict=True)
        ],
    }


def files_for_existing_tools(
    measured: Sequence[Measured], epochs: Sequence[Epoch]
) -> Iterator[tuple[str, object]]:
    """The files that the team's validation compares: figures and details of benchmarks, and the epochs.

    A file that is missing is not compared there, and a model then passes, however bad it is. If two
    benchmarks have one name in existing tools, the first of them has it.
    """
    written: set[str] = set()
    for one in measured:
        name = name_in_existing_tools(one.benchmark.name)
        if name in written:
            continue
        written.add(name)
        yield f"{_TEAMS_FOLDER}/benchmark_results_{name}.json", _percentages(one)
        if one.benchmark.codes is not None:
            yield f"{_TEAMS_FOLDER}/benchmark_details_{name}.json", _details(one, one.benchmark.codes)
    if epochs:
        losses = {
            f"epoch_{number}": {
                "accuracy": round(100 * epoch.accuracy, 4),
                "average_loss": round(epoch.loss, 6),
            }
            for number, epoch in enumerate(epochs, start=1)
        }
        yield f"{_TEAMS_FOLDER}/running_losses.json", losses


def _percentages(one: Measured) -> dict[str, float]:
    """Counts and percentages. `result2` counts the codes in the second place only."""
    codes, results, total = one.benchmark.codes, one.results, len(one.results)
    refused = sum(not found for found in results)
    counts = {"noResults": refused, "answered": total - refused}
    if codes is not None:
        places = ranks(codes, results)
        in_place = {f"result{place}": places.count(place) for place in range(1, RANKS + 1)}
        found = sum(in_place.values())
        counts = {
            **in_place,
            "inTop5": found,
            "outsideTop5": total - found,
            **counts,
            "inChapter": right_at(2, codes, results),
            "inHeading": right_at(4, codes, results),
            "inSubheading": right_at(6, codes, results),
        }
    percentages: dict[str, float] = {"total": total}
    for name, count in counts.items():
        percentages |= {name: count, f"{name}Percent": 100 * count / total}
    return percentages


def _details(one: Measured, codes: Sequence[str]) -> list[dict[str, object]]:
    return [
        {"description": description, "correct_code": code, "predictions": _predictions(results)}
        for description, code, results in zip(one.benchmark.descriptions, codes, one.results, strict=True)
    ]


def _predictions(results: Sequence[Result]) -> list[dict[str, object]]:
    return [{"code": result.code, "score": round(result.score, 6)} for result in results[:RANKS]]


def _written(content: object) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1)


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
            *_counts({"left_out": one.benchmark.left_out, **one.benchmark.noted}),
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
    _make_storable(root)
    return ET.ElementTree(root)


def _counts(counts: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, int]]:
    for kind, reasons in counts.items():
        yield from ((f"{kind}.{reason}", rows) for reason, rows in sorted(reasons.items()))


def _make_storable(root: ET.Element) -> None:
    """No text of the document may have a character that XML does not allow, whatever it came from."""
    for element in root.iter():
        if element.text is not None:
            element.text = xml_text(element.text)
        for name, value in element.items():
            element.set(name, xml_text(value))


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
