"""The table of problems: every error has its place in it, and the documentation lists every type."""

import re
from collections import defaultdict
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from app.api.common.errors import KINDS, Problem, ProblemKind, all_kinds, kind_of, problems
from app.api.common.problem_examples import PROBLEMS
from app.registry.errors import GateRefused, NotFound, RegistryError
from app.words import Stage

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "api.md"


def error_classes(base: type[RegistryError] = RegistryError) -> Iterator[type[RegistryError]]:
    for error in base.__subclasses__():
        yield error
        yield from error_classes(error)


def test_every_error_of_the_domain_is_in_the_table() -> None:
    assert set(error_classes()) <= KINDS.keys()


def test_no_type_has_two_titles_or_statuses() -> None:
    by_type: dict[str, set[ProblemKind]] = defaultdict(set)
    for kind in all_kinds():
        by_type[kind.type].add(kind)
    assert {type_: kinds for type_, kinds in by_type.items() if len(kinds) > 1} == {}


def test_the_documentation_lists_every_type_with_its_status() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", DOCUMENTATION.read_text(), flags=re.MULTILINE)
    assert {(type_, int(status)) for type_, status in rows} == {
        (kind.type, int(kind.status)) for kind in all_kinds()
    }


@pytest.mark.parametrize("error", [*error_classes(), *KINDS], ids=lambda error: error.__name__)
def test_every_error_can_be_documented_with_a_whole_example(error: type[Exception]) -> None:
    kind = kind_of(error)
    [example] = [
        shown["value"]
        for response in problems(error).values()
        for type_, shown in response["content"]["application/problem+json"]["examples"].items()
        if type_ == kind.type
    ]
    read = Problem.model_validate(example)
    assert (read.type, read.title, read.status) == (f"/problems/{kind.type}", kind.title, kind.status)
    assert read.detail == PROBLEMS[kind.type][0]


def test_an_error_without_a_message_of_its_own_says_what_its_class_says() -> None:
    assert str(NotFound()) == "The thing that the request names does not exist."
    assert str(NotFound("There is no model 1.0.0-abcdef1.")) == "There is no model 1.0.0-abcdef1."


def test_an_errors_facts_are_its_fields_without_those_that_are_not_set() -> None:
    refused = GateRefused("Promote it to staging first.", gate="stage_order", required_stage=Stage.STAGING)
    assert refused.facts == {"gate": "stage_order", "required_stage": Stage.STAGING}
    assert GateRefused(gate="verdict").facts == {"gate": "verdict"}


def test_an_error_that_is_not_in_the_table_counts_as_a_defect() -> None:
    assert kind_of(ZeroDivisionError).status == HTTPStatus.INTERNAL_SERVER_ERROR
