import io
import json
import math
from pathlib import Path

import pytest

from training.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_has_at_most_one_line_per_second_and_one_at_the_end_of_each_phase(tmp_path: Path) -> None:
    clock = Clock()
    log = io.StringIO()
    with Progress(tmp_path / "progress.jsonl", log=log, clock=clock) as progress:
        with progress.phase("embed", 100) as phase:
            for _ in range(100):
                clock.now += 0.1
                phase.advance()
        with progress.phase("train", 2) as phase:
            phase.advance(1, loss=0.5)
            phase.advance(1, accuracy=0.25)
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines].count("embed") == 11
    assert set(lines[0]) == {"time", "phase", "done", "total", "rate", "eta_seconds", "metrics"}
    half = next(line for line in lines if line["done"] >= 50)
    assert half["rate"] == pytest.approx(10, abs=0.2)
    assert half["eta_seconds"] == pytest.approx((100 - half["done"]) / 10, abs=0.2)
    assert lines[-2]["done"] == lines[-2]["total"] == 100
    assert lines[-1] | {"time": ""} == {
        "time": "",
        "phase": "train",
        "done": 2,
        "total": 2,
        "rate": 0.0,
        "eta_seconds": None,
        "metrics": {"loss": 0.5, "accuracy": 0.25},
    }
    assert lines[0]["time"].endswith("Z")
    assert "embed: 100 of 100" in log.getvalue()


def test_a_phase_that_fails_still_reports_how_far_it_got(tmp_path: Path) -> None:
    def fail() -> None:
        with Progress(tmp_path / "p", log=io.StringIO()) as progress, progress.phase("embed", 10) as phase:
            phase.advance(3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert json.loads((tmp_path / "p").read_text().splitlines()[-1])["done"] == 3


def test_a_line_of_progress_can_always_be_read(tmp_path: Path) -> None:
    with Progress(tmp_path / "p", log=io.StringIO()) as progress:
        with progress.phase("a\x00\nb", 0) as phase:
            phase.advance(5, loss=math.nan, accuracy=0.5, rate=math.inf)
        with progress.phase("slow", 10) as phase:
            phase.advance(0)
    for line in (tmp_path / "p").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
    first = json.loads((tmp_path / "p").read_text().splitlines()[0])
    assert first["phase"] == "a??b"
    assert first["metrics"] == {"accuracy": 0.5}


def test_an_estimate_beyond_all_numbers_is_left_out(tmp_path: Path) -> None:
    clock = Clock()
    with (
        Progress(tmp_path / "p", log=io.StringIO(), clock=clock) as progress,
        progress.phase("train", 10**300) as phase,
    ):
        clock.now = 1e300
        phase.advance(1)
    line = json.loads((tmp_path / "p").read_text().splitlines()[0])
    assert line["eta_seconds"] is None


def test_half_a_line_that_a_killed_run_left_does_not_spoil_the_next_line(tmp_path: Path) -> None:
    (tmp_path / "p").write_text('{"phase": "clean"}\n{"phase": "emb')
    with Progress(tmp_path / "p", log=io.StringIO()) as progress, progress.phase("embed", 1) as phase:
        phase.advance(1)
    lines = (tmp_path / "p").read_text().splitlines()
    assert lines[:2] == ['{"phase": "clean"}', '{"phase": "emb']
    assert json.loads(lines[2])["phase"] == "embed"


def test_a_line_for_people_is_one_line_without_secrets() -> None:
    log = io.StringIO()
    with Progress(log=log) as progress:
        progress.say("fetched https://u:s3cret@h/a?sig=s3cret\nerror: forged\x1b[2J" + "x" * 10_000)
    (line,) = log.getvalue().splitlines()
    assert line.startswith("fetched https://h/a?error: forged?[2J")
    assert len(line) == 4000


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_progress_bar() -> None:
    terminal = Terminal()
    with Progress(log=terminal) as progress, progress.phase("embed", 10) as phase:
        phase.advance(10)
        progress.say("a line [not markup]")
    assert "embed" in terminal.getvalue()
    assert "10/10" in terminal.getvalue()
    assert "a line [not markup]" in terminal.getvalue()
