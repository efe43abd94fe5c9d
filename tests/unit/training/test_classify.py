import io
import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.cleaning.cleaner import Cleaner
from training.cleaning.text import drop_short
from training.config import VAGUE_CODE, PatternsMatch, parse_config
from training.embedding.encoder import Embeddings, Encoder
from training.evaluation.benchmark import Benchmark
from training.evaluation.classify import Classifier, Limits, Result, log_sum_exp_by_group
from training.evaluation.measure import MEASUREMENT, Measured, measure
from training.evaluation.results import write_results
from training.network.head import Network, Sizes
from training.network.package import Answers, Model
from training.network.standing import Epoch
from training.progress import Progress

QUIET = Progress(log=io.StringIO())


class Logits:
    """An encoder that embeds "1 2 3" as these three numbers, so that the logits are in the text."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str], progress: Progress) -> Embeddings:
        self.asked += texts
        return np.array([[float(number) for number in text.split()] for text in texts], dtype=np.float32)

    def encode_one(self, text: str) -> Embeddings:
        row: Embeddings = self.encode([text], QUIET)[0]
        return row


def classifier(
    classes: list[str],
    *,
    digits: int = 6,
    limits: Limits | None = None,
    vague: frozenset[str] = frozenset(),
    patterns: tuple[str, ...] = (),
    patterns_match: PatternsMatch = "start",
    cleaners: tuple[Cleaner, ...] = (),
    references: dict[str, str] | None = None,
) -> Classifier:
    size = len(classes)
    network = Network(Sizes(size, size, size, 0.0, 0.0)).eval()
    with torch.no_grad():
        for layer in (network.fc1, network.fc2):
            layer.weight.copy_(torch.eye(size))
            layer.bias.zero_()
    answers = Answers("t", "00", digits, vague, patterns, references or {})
    limits = limits or Limits(best_share=1.0)
    return Classifier(
        Model(network, classes, answers),
        cast("Encoder", Logits()),
        limits,
        digits,
        cleaners=cleaners,
        patterns_match=patterns_match,
    )


def codes(results: list[Result]) -> list[str]:
    return [result.code for result in results]


def test_classes_that_share_their_digits_are_summed_as_probabilities() -> None:
    eight = classifier(["01012100", "01012900", "01022100", VAGUE_CODE], digits=6)
    results = eight.classify("1 2 3 0")
    chances = [math.exp(1), math.exp(2), math.exp(3), math.exp(0)]
    assert codes(results) == ["010221", "010129", "010121"]
    assert results[0].score == pytest.approx(chances[2] / sum(chances), rel=1e-5)
    two = classifier(["01012100", "01012900", "01022100", "02011000"], digits=2).classify("1 2 3 4")
    assert two[0].code == "02"
    assert two[0].score == pytest.approx(math.exp(4) / (sum(chances[:3]) + math.exp(4)), rel=1e-5)


@given(
    st.lists(st.floats(-50, 50), min_size=6, max_size=6), st.lists(st.integers(0, 3), min_size=6, max_size=6)
)
def test_log_sum_exp_by_group_agrees_with_numpy(logits: list[float], groups: list[int]) -> None:
    got = log_sum_exp_by_group(torch.tensor([logits]), torch.tensor(groups), 4)[0].tolist()
    for group in set(groups):
        values = [value for value, of in zip(logits, groups, strict=True) if of == group]
        expected = float(np.logaddexp.reduce(values))
        # In float32, e⁻⁸⁷ times the best probability is 0, which is the last place either way.
        assert got[group] == pytest.approx(max(expected, max(logits) - 87.3365), abs=1e-3)


def test_a_result_far_below_the_best_is_cut() -> None:
    # 0.045 is less than 0.05 times the best score.
    limits = Limits(best_share=1.0, cumulated_score=1.0)
    scores = [0.955, 0.045]
    text = " ".join(str(math.log(score) + 10) for score in scores)
    assert codes(classifier(["010121", "010129"], limits=limits).classify(text)) == ["010121"]


def test_a_result_below_one_percent_is_cut() -> None:
    limits = Limits(best_share=1.0, cumulated_score=1.0, minimum_of_best=0.0)
    text = " ".join(str(math.log(score) + 10) for score in (0.98, 0.011, 0.009))
    assert codes(classifier(["010121", "010129", "010130"], limits=limits).classify(text)) == [
        "010121",
        "010129",
    ]


def test_the_list_ends_when_enough_is_cumulated_or_at_the_limit() -> None:
    text = " ".join(str(math.log(score) + 10) for score in (0.6, 0.31, 0.09))
    three = ["010121", "010129", "010130"]
    assert codes(classifier(three).classify(text)) == ["010121", "010129"]
    assert codes(classifier(three, limits=Limits(limit=1, best_share=1.0)).classify(text)) == ["010121"]


def test_the_list_ends_at_the_vague_class() -> None:
    three = ["010121", "010129", VAGUE_CODE]
    text = " ".join(str(math.log(score) + 10) for score in (0.5, 0.2, 0.3))
    assert codes(classifier(three).classify(text)) == ["010121"]
    assert classifier(three).classify("1 1 5") == []


def test_the_softmax_is_over_the_best_share_alone() -> None:
    results = classifier(["010121", "010129", "010130", "010190"], limits=Limits(best_share=0.5)).classify(
        "3 2 1 1"
    )
    assert results[0].score == pytest.approx(1 / (1 + math.exp(-1)), rel=1e-5)


def test_vague_terms_patterns_and_references_answer_before_the_network_and_vague_wins() -> None:
    chosen = classifier(
        ["010121", "851610"],
        vague=frozenset({"goods", "both"}),
        patterns=("^CONSOLIDATED .*$",),
        references={"kettle": "85161000", "both": "010121"},
    )
    assert chosen.classify("Goods.") == []
    assert chosen.classify("consolidated colli 5") == []
    assert chosen.classify("  KETTLE ") == [Result("851610", 1.0)]
    assert chosen.classify("both") == []


def test_patterns_match_at_the_start_unless_the_configuration_says_anywhere() -> None:
    classes = ["010121", "851610"]
    texts = ["consolidated colli 5", "0 9"]
    expected: dict[PatternsMatch, list[list[str]]] = {"start": [[], ["851610"]], "anywhere": [[], []]}
    for match, answers in expected.items():
        chosen = classifier(classes, patterns=("CONSOLIDATED", "9"), patterns_match=match)
        assert [codes(chosen.classify(text)) for text in texts] == answers
    assert parse_config('name = "m"\nversion = "0.1.0"\n').vague_patterns_match == "start"


def test_what_the_cleaning_drops_is_refused_before_lists_and_network_are_asked() -> None:
    chosen = classifier(["010121", "851610"], references={"9": "010121"}, cleaners=(drop_short(1),))
    assert chosen.classify("9") == []
    assert [codes(found) for found in chosen.classify_all(["9", "0 9"], QUIET)] == [[], ["851610"]]


def test_many_descriptions_are_answered_in_their_order_and_embedded_once() -> None:
    chosen = classifier(["010121", "851610"], vague=frozenset({"goods"}))
    results = chosen.classify_all(["9 0", "goods", "0 9", "9 0"], QUIET)
    assert [codes(found) for found in results] == [["010121"], [], ["851610"], ["010121"]]
    assert results[0] == chosen.classify("9 0")


def test_a_benchmark_without_codes_measures_refusals() -> None:
    vague = Benchmark("vague", ["0 9", "9 0", "goods"], None, {})
    measured = measure(vague, classifier(["010121", "851610"], vague=frozenset({"goods"})), QUIET)
    assert measured.metrics == {
        "count": 3,
        "no_result": pytest.approx(1 / 3, abs=1e-6),
        "measurement": MEASUREMENT,
    }


def test_figures_by_rank_level_and_chapter() -> None:
    classes = ["010121", "010129", "010221", "851610", VAGUE_CODE]
    limits = Limits(best_share=1.0, cumulated_score=1.0, minimum_of_best=0.0, minimum_score=0.0)
    cases = {
        "9 1 1 1 0": "010121",
        "8 9 1 1 0": "010121",
        "2 1 9 8 0": "010121",
        "1 1 1 1 9": "010129",
        "1 9 1 8 0": "851699",
    }
    benchmark = Benchmark("b", list(cases), list(cases.values()), {})
    measured = measure(benchmark, classifier(classes, limits=limits), QUIET)
    assert measured.figures == {
        "top_1": 0.2,
        "top_2": 0.4,
        "top_3": 0.6,
        "top_4": 0.6,
        "top_5": 0.6,
        "not_found": 0.4,
        "no_result": 0.2,
        "chapter": 0.6,
        "heading": 0.4,
        "subheading": 0.2,
    }
    assert measured.chapters["01"]["count"] == 4
    assert measured.chapters["85"]["top_1"] == 0.0


def test_results_are_written_as_junit_and_json_with_the_same_bytes_twice(tmp_path: Path) -> None:
    config = parse_config('name = "m"\nversion = "0.1.0"\n[benchmark_floors.b]\ntop_1 = 0.9\nchapter = 0.1\n')
    benchmark = Benchmark("b", ["x", "y"], ["010121", "851610"], {"ambiguous": 3})
    measured = Measured(
        benchmark,
        {"top_1": 0.5, "chapter": 0.5},
        {"01": {"count": 1, "top_1": 1.0}},
        [[Result("010121", 0.75)], []],
    )
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_results(tmp_path / folder, [measured], config, (Epoch(0.5, 0.25),))
    for name in ("benchmark_results.xml", "benchmark_results.zip"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    (suite,) = ET.parse(tmp_path / "one" / "benchmark_results.xml").getroot()
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == ("b", "3", "1")
    failed = [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None]
    assert failed == ["top_1"]
    with zipfile.ZipFile(tmp_path / "one" / "benchmark_results.zip") as archive:
        content = json.loads(archive.read("b.json"))
    assert content["metrics"] == {"count": 2, "top_1": 0.5, "chapter": 0.5, "measurement": MEASUREMENT}
    assert content["left_out"] == {"ambiguous": 3}
    assert content["predictions"] == [
        {"description": "x", "code": "010121", "results": [{"code": "010121", "score": 0.75}]},
        {"description": "y", "code": "851610", "results": []},
    ]
