"""What a job writes is foreign: progress and results of any content do no harm."""

import json
import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.settings import Settings
from app.words import BuildKind, StepName
from worker.flows import FLOWS
from worker.machine.job import Progress, progress_of
from worker.steps.reported import JobInput, rows_by_source
from worker.steps.result import JobResult

DIGEST = "0" * 64
NUMBERS = st.one_of(st.integers(), st.floats(), st.text(), st.none(), st.booleans(), st.just(10**400))


def line(**fields: Any) -> bytes:
    return json.dumps({"phase": "embed", "done": 1, "total": 4, "eta_seconds": 5} | fields).encode()


def assert_harmless(progress: Progress | None) -> None:
    if progress is None:
        return
    assert 0 <= progress.percent <= 100
    assert progress.eta_seconds is None or (math.isfinite(progress.eta_seconds) and progress.eta_seconds >= 0)
    assert len(progress.phase) <= 100


@given(st.binary())
def test_any_bytes_are_harmless_as_progress(content: bytes) -> None:
    assert_harmless(progress_of(content))


@given(phase=st.text(), done=NUMBERS, total=NUMBERS, eta_seconds=NUMBERS)
def test_any_values_are_harmless_as_progress(**fields: Any) -> None:
    assert_harmless(progress_of(line(**fields)))


def test_progress_is_a_share_in_percent() -> None:
    assert progress_of(line()) == Progress("embed", 25.0, 5.0)


@pytest.mark.parametrize(
    "eta", ["Infinity", "-Infinity", "NaN", "-1", "true", '"soon"', "null", "[]", f"1{'0' * 400}"]
)
def test_an_impossible_time_left_is_unknown(eta: str) -> None:
    shown = progress_of(b'{"phase": "embed", "done": 1, "total": 4, "eta_seconds": %s}' % eta.encode())
    assert shown == Progress("embed", 25.0, None)


@pytest.mark.parametrize(
    ("done", "total", "percent"), [(-5, 10, 0.0), (11, 10, 100.0), (1e308, 1e-308, 100.0)]
)
def test_percent_stays_within_its_range(done: float, total: float, percent: float) -> None:
    shown = progress_of(line(done=done, total=total))
    assert shown is not None
    assert shown.percent == percent


@pytest.mark.parametrize(
    "content",
    [
        line(done=math.nan),
        line(total=math.inf),
        line(total=0),
        line(total=-1),
        line(done=10**400),
        line(done="many"),
        line(done=None),
        b'{"phase": "embed", "done": 1%s, "total": 4}' % (b"0" * 5000),
        b"[" * 100_000,
        b'{"phase": ' + b"[" * 100_000,
        b"[1, 2]",
        b'"text"',
        b"null",
        b"{}",
        b"\xff\xfe",
        b"",
    ],
)
def test_a_line_without_usable_progress_is_left_out(content: bytes) -> None:
    assert progress_of(content) is None


def test_a_phase_may_hold_any_character_and_is_cut() -> None:
    shown = progress_of(line(phase="a\0b" + "x" * 1000))
    assert shown is not None
    assert (shown.phase[:3], len(shown.phase)) == ("a\0b", 100)


@pytest.mark.parametrize("code", ["", "Out of memory", "x" * 51, "a\n", "a\0", "1st", "größe", "a-b"])
def test_a_code_that_programs_cannot_branch_on_is_left_out(code: str) -> None:
    assert JobResult(outcome="failed", code=code).code == ""


def test_a_code_that_nobody_knows_yet_is_kept() -> None:
    assert JobResult(outcome="failed", code="out_of_patience").code == "out_of_patience"


@pytest.mark.parametrize(
    "digest", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64, f"{DIGEST}\n", f"../{DIGEST}"]
)
def test_a_digest_of_another_form_is_refused(digest: str) -> None:
    with pytest.raises(ValidationError):
        JobInput(kind="transformer", name="x", sha256=digest)
    with pytest.raises(ValidationError):
        JobResult.model_validate(
            {"outcome": "succeeded", "files": {"model.zip": {"sha256": digest, "size_bytes": 1}}}
        )


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ValidationError):
        JobResult.model_validate(
            {"outcome": "succeeded", "files": {"model.zip": {"sha256": DIGEST, "size_bytes": -1}}}
        )


@pytest.mark.parametrize(
    "file", ["", "/etc/passwd", "..", "../model.zip", "a/../../b", "a\nb", "a\0b", ".", "./", "a/.."]
)
def test_a_file_outside_the_output_folder_is_refused(file: str) -> None:
    with pytest.raises(ValidationError, match="inside the output folder"):
        JobInput(kind="additional_source", name="x", sha256=DIGEST, file=file)


@pytest.mark.parametrize("file", ["answer.json", "sources/answer.json", "..answer", "a b.json"])
def test_a_file_inside_the_output_folder_is_taken(file: str) -> None:
    assert JobInput(kind="additional_source", name="x", sha256=DIGEST, file=file).file == file


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://user:secret@example.org/data.csv", "https://example.org/data.csv"),
        ("https://example.org/data.csv?token=secret#secret", "https://example.org/data.csv"),
        ("https://[user:secret@example.org", "https://"),
        ("git@example.org:data", "example.org:data"),
    ],
)
def test_what_may_be_secret_in_a_url_is_removed(url: str, public: str) -> None:
    assert JobInput(kind="additional_source", name="x", sha256=DIGEST, url=url).url == public


def test_what_is_not_a_short_fact_of_an_input_is_left_out() -> None:
    details = {
        "seed": 0,
        "clean": True,
        "origin": "https://user:secret@example.org/x?token=secret",
        "gpu": "x" * 1000,
        "share": 0.5,
        "deep": {"a": 1},
        "none": None,
        "n" * 101: 1,
    }
    kept = JobInput(kind="hardware", name="x", sha256=DIGEST, details=details).details
    assert kept == {"seed": 0, "clean": True, "origin": "https://example.org/x", "gpu": "x" * 500}
    many = JobInput(kind="hardware", name="x", sha256=DIGEST, details={str(n): n for n in range(100)})
    assert len(many.details) == 50


PART = {"path": "config.json", "sha256": DIGEST, "size_bytes": 1}


@pytest.mark.parametrize(
    "parts", [None, "x", [1], [PART, {**PART, "sha256": "x"}], [PART, PART], [{**PART, "path": "x" * 201}]]
)
def test_of_the_files_of_an_input_all_or_none_are_recorded(parts: Any) -> None:
    assert JobInput(kind="transformer", name="x", sha256=DIGEST, parts=parts).parts == ()


def test_the_rows_of_each_source_are_taken_from_what_the_training_says_of_its_data() -> None:
    said = {"cn": {"rows": 21, "usable": 20}, "odd": {"rows": "many"}, "odder": 3}
    assert rows_by_source(said) == {"cn": 21}


@given(epochs=st.one_of(NUMBERS, st.lists(st.one_of(NUMBERS, st.dictionaries(st.text(), NUMBERS)))))
def test_any_epochs_phases_data_and_warnings_are_harmless(epochs: Any) -> None:
    result = JobResult.model_validate(
        {"outcome": "succeeded", "epochs": epochs, "phases": epochs, "data": epochs, "warnings": epochs}
    )
    json.dumps(result.model_dump(), allow_nan=False)


def test_what_describes_a_training_is_kept_short() -> None:
    result = JobResult.model_validate(
        {
            "outcome": "succeeded",
            "epochs": [{"epoch": number, "loss": 0.5} for number in range(1, 1001)],
            "phases": [{"phase": "x" * 1000, "seconds": 1.5}] * 1000,
            "data": {"cn": {"rows": "x" * 100_000}},
            "warnings": ["see https://user:secret@example.org/x?token=secret " + "x" * 1000] * 60,
        }
    )
    assert (len(result.epochs), result.epochs[-1]["epoch"]) == (500, 1000)
    assert (len(result.phases), len(str(result.phases[0]["phase"]))) == (100, 100)
    assert result.data == {}
    assert len(result.warnings) == 51
    assert "secret" not in result.warnings[0]
    assert result.warnings[-1] == "There are 10 more warnings in the log of the training."


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"[" * 100_000, b'{"outcome": ', b"\xff"])
def test_a_result_that_cannot_be_read_is_a_validation_error(content: bytes) -> None:
    with pytest.raises(ValidationError):
        JobResult.model_validate_json(content)


def test_an_instance_outlives_the_deadlines_of_all_steps_on_it() -> None:
    names = list(BuildKind.TRAIN.steps)
    on_it = names[names.index(StepName.LAUNCH_INSTANCE) : names.index(StepName.COLLECT) + 1]
    deadlines = [step.deadline for step in FLOWS[BuildKind.TRAIN] if step.name in on_it]
    assert None not in deadlines
    total = sum((deadline for deadline in deadlines if deadline is not None), timedelta(0))
    lifetime = Settings.model_fields["instance_lifetime"].default
    assert total < lifetime
