"""The closed sets of words, and what is made from them."""

from app.failures import FailureCode
from app.words import BuildKind, BuildState, StepName, known
from tests.unit.app.failure_codes import PAGE, page
from training.errors import FailureCode as TrainingFailureCode


def test_the_page_of_failure_codes_lists_what_the_code_has() -> None:
    how = "The codes changed. Write the page anew with: python -m tests.unit.app.failure_codes"
    assert PAGE.read_text(encoding="utf-8") == page(), how


def test_every_code_of_the_training_is_documented() -> None:
    assert {reason.code for reason in TrainingFailureCode} <= set(FailureCode)


def test_every_code_says_what_it_means_and_what_to_do_in_whole_sentences() -> None:
    for code in FailureCode:
        assert code.meaning.endswith("."), code
        assert code.advice.endswith("."), code


def test_an_ended_build_never_changes_its_state_again() -> None:
    assert all(state.active or not state.next for state in BuildState)


def test_every_step_belongs_to_a_kind_of_build() -> None:
    assert {name for kind in BuildKind for name in kind.steps} == set(StepName)


def test_a_word_of_another_version_is_not_known() -> None:
    assert known(BuildKind, "train") is BuildKind.TRAIN
    assert known(BuildKind, "bake") is None
