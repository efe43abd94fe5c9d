"""The page that shows how a model was trained and what it gets wrong."""

import io
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import pytest

from tests.unit.training import measurements
from tests.unit.training.measurements import CONFIG, EPOCHS, HOSTILE, ROWS
from training.evaluation.benchmark import Benchmark
from training.evaluation.classify import Result
from training.evaluation.measure import Measured
from training.evaluation.report import drawing, numbers, page, write
from training.evaluation.report.numbers import Chapter, answers, calibration, confusion
from training.evaluation.report.write import TRAINING_REPORT, write_training_report
from training.network.standing import Epoch
from training.progress import Progress

VOID = {"meta", "br", "link", "img"}


class Parsed(HTMLParser):
    """What a browser would see: elements with their attributes, and texts by the element they stand in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, tag: str) -> str:
        return " | ".join(" ".join(data.split()) for inside, data in self.texts if inside == tag)


@pytest.fixture(scope="module")
def written() -> str:
    return page.page([measurements.coded(), measurements.vague()], CONFIG, EPOCHS)


@pytest.fixture(scope="module")
def parsed(written: str) -> Parsed:
    return Parsed(written)


def test_nothing_is_loaded_or_run_and_descriptions_stay_texts(written: str, parsed: Parsed) -> None:
    assert {tag for tag, _ in parsed.elements} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "image",
    } == set()
    assert "url(http" not in written
    assert "@import" not in written
    for tag, attributes in parsed.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in {"href", "src", "xlink:href", "action"}:
                assert (value or "").startswith("#"), (tag, name, value)
    [policy] = [meta["content"] for meta in parsed.of("meta") if "http-equiv" in meta]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert HOSTILE in parsed.text("q")
    assert f"vague {HOSTILE}" in parsed.text("h2")
    assert '1,200 (language "<b>french")' in parsed.text("p")
    assert "leather bags $x^2$ & more" in parsed.text("q")


def test_every_reference_within_the_page_leads_to_one_element(written: str, parsed: Parsed) -> None:
    ids = Counter(attributes["id"] for _, attributes in parsed.elements if "id" in attributes)
    assert max(ids.values()) == 1
    referred = {attributes["href"] for attributes in parsed.of("a")}
    referred |= {attributes["xlink:href"] for attributes in parsed.of("use")}
    referred |= set(re.findall(r"url\((#[^)]*)\)", written))
    assert len(referred) > 4
    assert {str(one)[1:] for one in referred} <= ids.keys()
    labelled = {attributes["aria-labelledby"] for attributes in parsed.of("section")}
    assert labelled <= ids.keys()


def test_each_drawing_has_words_and_a_table_for_those_who_cannot_see_it(parsed: Parsed) -> None:
    drawings = [attributes for _, attributes in parsed.elements if attributes.get("role") == "img"]
    # Epochs; chapters, calibration and confusion of one benchmark; scores of the other.
    assert len(drawings) == len(parsed.of("svg")) == len(parsed.of("details")) - 2 == 5
    assert all(len(str(one["aria-label"])) > 40 for one in drawings)
    assert all(one["scope"] in {"col", "row"} for one in parsed.of("th"))
    assert "Over 2 epochs, the loss went from 2.500 to 1.250" in str(drawings[0]["aria-label"])
    cells = parsed.text("td")
    assert "2.5000 | 40.0%" in cells
    # A chapter with its interval, a bin of scores, a cell of the confusion.
    assert "3 | 66.7% | 20.8% to 93.9% | 66.7% | few descriptions" in cells
    assert "above 90% to 100%" in parsed.text("th")
    assert "64 | 2 | 66.7%" in cells


def test_figures_have_their_meaning_and_say_if_they_are_below_their_floor(parsed: Parsed) -> None:
    cells = parsed.text("td")
    assert "33.3% (below its floor of 90.0%) |" in cells
    assert "33.3% | the first result is in the right chapter (2 digits)" in cells
    assert "16.7% | 66.7% | there is no answer: right for" in cells
    # Nobody measured it.
    assert "heading" not in parsed.text("th")
    assert "1 of 6 (16.7%) got no answer" in parsed.text("p")
    assert "2 of 3 (66.7%) were rightly refused. 1 of 3 (33.3%) were answered." in parsed.text("p")


def test_marks_of_drawings_say_what_they_stand_for(parsed: Parsed) -> None:
    titles = parsed.text("title")
    assert "chapter 64, 3 descriptions: top 1 66.7%, top 5 66.7%" in titles
    assert "chapter 42, answered with chapter 64: 2 (66.7% of the chapter)" in titles
    assert "chapter 42, without an answer: 1 (33.3% of the chapter)" in titles
    assert "scores above 90% to 100%: 1 answer, mean score 95.0%, right 100.0%" in titles


def test_the_same_results_give_the_same_bytes_whatever_a_user_has_set(written: str) -> None:
    with mpl.rc_context({"font.size": 20, "svg.fonttype": "path", "axes.grid": False}):
        again = page.page([measurements.coded(), measurements.vague()], CONFIG, EPOCHS)
    assert again == written


def test_the_epochs_of_a_tuning_are_shown_beside_those_of_the_network(written: str) -> None:
    tuning = (Epoch(2.125, 0.69), Epoch(1.25, 0.8), Epoch(1.0, 0.85))
    tuned = page.page([measurements.coded(), measurements.vague()], CONFIG, EPOCHS, tuning)
    assert "The tuning of the transformer" in Parsed(tuned).text("h3")
    assert "The tuning of the transformer" not in written
    said = "Over 3 epochs, the loss went from 2.125 to 1.000, and the accuracy from 69.0% to 85.0%."
    assert said in " ".join(tuned.split())
    # The drawings on a page must not share names.
    names = re.findall(r'\bid="([^"]+)"', tuned)
    assert len(names) == len(set(names))


def test_a_model_without_epochs_and_a_benchmark_without_answers_have_a_report() -> None:
    unanswered = Measured(
        Benchmark("b", ["shoes"], ["640399"], {}),
        {"no_result": 1.0},
        {"64": {"count": 1, "top_1": 0.0, "top_5": 0.0}},
        [[]],
    )
    refused = Measured(Benchmark("v", ["goods"], None, {}), {"no_result": 1.0}, {}, [[]])
    text = Parsed(page.page([unanswered, refused], CONFIG, ())).text("p")
    assert "The model does not say how it was trained." in text
    assert "No description was answered." in text
    assert "No first result is in a wrong chapter." in text
    assert "1 of 1 (100.0%) were rightly refused." in text


def test_many_benchmarks_and_long_texts_keep_the_page_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_BENCHMARKS", 1)
    monkeypatch.setattr(numbers, "MOST_CELLS", 2)
    found = Parsed(page.page([measurements.coded(), measurements.vague()], CONFIG, ()))
    assert "Only the first 1 benchmarks are shown. benchmark_results.zip has 1 more." in found.text("p")
    assert "vague" not in found.text("h2")
    assert max(len(quoted) for quoted in found.text("q").split(" | ")) == numbers.LONGEST_SHOWN
    assert "2 rarer cells are left out." in found.text("figcaption")


def test_calibration_compares_scores_with_the_share_that_is_right() -> None:
    results = [[Result("a", 0.2)], [Result("a", 0.2)], [Result("a", 1.0)], []]
    found = calibration(["a", "b", "a", "b"], results)
    assert found is not None
    used = [(one.range, one.count, one.score, one.right) for one in found.bins if one.count]
    assert used == [("above 10% to 20%", 2, 0.2, 0.5), ("above 90% to 100%", 1, 1.0, 1.0)]
    assert found.error == pytest.approx(2 / 3 * 0.3)
    assert calibration(["a"], [[]]) is None


def test_the_interval_of_a_chapter_is_wilsons() -> None:
    assert Chapter("64", 10, 0.5, 1.0).interval == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert Chapter("64", 20, 0.0, 0.0).interval == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert [Chapter("64", count, 0.5, 1.0).is_uncertain for count in (9, 10)] == [True, False]


def test_pairs_of_chapters_are_listed_by_frequency_with_the_most_certain_mistakes() -> None:
    of = measurements.coded()
    found = confusion(of.benchmark.descriptions, of.benchmark.codes or [], of.results)
    assert [(one.cell.right, one.cell.answered, one.cell.count) for one in found.pairs] == [
        ("42", "64", 2),
        ("64", "42", 1),
    ]
    assert [one.score for one in found.pairs[0].examples] == [0.65, 0.35]
    assert sum(cell.count for cell in found.cells) == len(ROWS)


def test_refused_descriptions_are_chosen_from_everywhere() -> None:
    texts = [f"description {number:03}" for number in range(100)]
    of = Measured(Benchmark("b", texts, ["640399"] * 100, {}), {}, {}, [[] for _ in texts])
    found = answers(of)
    assert (found.refused, found.answered) == (100, 0)
    assert [one.description for one in found.mistakes] == texts[::5]


def test_a_report_that_cannot_be_made_costs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    measured = [measurements.vague()]
    [path], warnings = write_training_report(tmp_path, measured, CONFIG, EPOCHS, (), Progress(log=log))
    assert (path, warnings) == (tmp_path / TRAINING_REPORT, [])
    assert path.read_text("utf-8").startswith("<!doctype html>")

    def broken(*_: object) -> str:
        raise ValueError("no\nfont")

    monkeypatch.setattr(drawing, "epochs", broken)
    paths, [warning] = write_training_report(tmp_path, measured, CONFIG, EPOCHS, (), Progress(log=log))
    assert paths == []
    assert "training_report.html could not be made (ValueError: no?font)" in warning
    assert f"warning: {warning}" in log.getvalue()
    # Not even the one of the earlier results.
    assert list(tmp_path.iterdir()) == []
    assert write.TRAINING_REPORT == "training_report.html"
