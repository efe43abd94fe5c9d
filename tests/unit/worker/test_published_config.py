"""The search-config.toml that is published with a model."""

import json
import tomllib
from typing import Any
from uuid import uuid4

import pytest

from app.registry.builds.lease import Lease
from app.registry.builds.steps import BuildView
from app.words import BuildKind, StepName
from training.config import differences, every_value, parse_config
from worker.steps.job import JobState
from worker.steps.published_config import published_config
from worker.steps.result import JobResult

POSTED = '# A version of the team.\nversion = "0.0.2"\nname = "small"\ncn_data_file = "cn.csv"\n'


def build(reported: dict[str, Any], posted: str = POSTED) -> BuildView:
    trained = JobState(config=reported).model_dump(mode="json")
    return BuildView(
        lease=Lease(uuid4(), 1),
        kind=BuildKind.TRAIN,
        prefix="0.0.2-aaaaaaa",
        version="0.0.2",
        sha="a" * 40,
        branch="main",
        search_config=posted,
        thresholds=None,
        promote_to=None,
        forced=False,
        failure=None,
        cancelled_by=None,
        retry_of=None,
        reproduces=None,
        reproduction_wanted=None,
        takings=0,
        last_error=None,
        started=frozenset({StepName.TRAIN}),
        done=frozenset({StepName.TRAIN}),
        outputs={StepName.TRAIN: trained},
        checkpoints={},
    )


def test_it_names_the_values_that_the_training_used() -> None:
    """The training at the build's commit may have other defaults, and other keys, than this release."""
    # As they come in result.json.
    used = json.loads(json.dumps(every_value(parse_config(POSTED))))
    used |= {"digits": 8, "a_key_of_another_release": [1, 2]}
    published = tomllib.loads(published_config(build(used)))
    assert published == used
    assert parse_config(POSTED).digits == 6


@pytest.mark.parametrize("reported", [{}, {"version": "9.9.9", "digits": 8}], ids=["none", "another"])
def test_without_a_usable_report_it_names_the_values_of_this_release(reported: dict[str, Any]) -> None:
    published = published_config(build(reported))
    assert differences(POSTED, published) == ()
    assert "uses_quantized_model = false" in published.splitlines()
    assert [line for line in published.splitlines() if "version" in line] == ['version = "0.0.2"']


def test_a_text_that_this_release_cannot_read_is_published_as_it_was_posted() -> None:
    posted = POSTED + "a_key_of_an_earlier_release = 1\n"
    assert published_config(build({}, posted)) == posted


@pytest.mark.parametrize(
    "value", [f"{'[' * 10}{']' * 10}", f"{'[' * 100}{']' * 100}", json.dumps(["a" * 1000] * 100)]
)
def test_a_report_that_is_too_deep_or_too_large_is_dropped(value: str) -> None:
    text = f'{{"outcome": "succeeded", "config": {{"version": "0.0.2", "value": {value}}}}}'
    assert JobResult.model_validate_json(text).config == {}
