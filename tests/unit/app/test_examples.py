"""The examples of the OpenAPI document are answers that the API could give."""

from typing import Any

import pytest
from pydantic import BaseModel

from app.api.builds.answers import BuildOut
from app.api.builds.posting import BuildAnswerOut, BuildCreate
from app.api.collection.rules import ReleaseRuleCreate, ReleaseRuleOut
from app.api.common import examples
from app.api.models.benchmarks import ComparisonOut
from app.api.models.lineage import LineageOut
from app.api.models.reading import ModelOut, OneModelOut
from app.api.models.signing import SigningOut
from app.api.notifications import NotificationOut
from app.api.stages.history import PeriodOut, RollbackCreate, StageList
from app.api.stages.latest import LatestOut
from app.api.stages.promotions import PromotionOut
from app.api.tokens import TokenCreate, TokenCreated, TokenOut
from training.config import parse_config


@pytest.mark.parametrize(
    ("shape", "example"),
    [
        (BuildCreate, examples.BUILD_CREATE),
        (BuildOut, examples.BUILD),
        (BuildAnswerOut, examples.QUEUED),
        (BuildAnswerOut, examples.NOT_NEEDED),
        (BuildAnswerOut, examples.NEEDED),
        (ModelOut, examples.MODEL),
        (OneModelOut, examples.ONE_MODEL),
        (LineageOut, examples.LINEAGE),
        (ComparisonOut, examples.COMPARISON),
        (SigningOut, examples.SIGNING),
        (PromotionOut, examples.PROMOTION),
        (LatestOut, examples.LATEST),
        (StageList, examples.STAGES),
        (PeriodOut, examples.PERIOD),
        (RollbackCreate, examples.ROLLBACK_CREATE),
        (TokenCreate, examples.TOKEN_CREATE),
        (TokenOut, examples.TOKEN),
        (TokenCreated, examples.TOKEN_CREATED),
        (NotificationOut, examples.NOTIFICATION),
        (ReleaseRuleCreate, examples.RELEASE_RULE_CREATE),
        (ReleaseRuleOut, examples.RELEASE_RULE),
    ],
)
def test_an_example_is_of_its_shape_and_whole(shape: type[BaseModel], example: dict[str, Any]) -> None:
    read = shape.model_validate(example)
    assert read.model_dump(mode="json", exclude_unset=True) == example


def test_the_example_of_a_configuration_can_be_used() -> None:
    parse_config(examples.BUILD_CREATE["search_config"])
    parse_config(examples.BUILD_CREATE["base_search_config"])
