"""Which texts are too vague to be answered."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.network.refusal import decide

VAGUE = 1


def logits(*chances: float) -> torch.Tensor:
    return torch.tensor([[math.log(chance) for chance in chances]])


def order(decided: torch.Tensor) -> list[int]:
    return decided[0].argsort(descending=True).tolist()


def test_a_text_without_a_likely_code_is_refused() -> None:
    # The vague class is behind the best code in both texts.
    likely, unlikely = logits(0.8, 0.15, 0.03, 0.02), logits(0.3, 0.25, 0.25, 0.2)
    assert order(decide(likely, VAGUE, 1.0)) == [0, 2, 3, 1]
    assert order(decide(unlikely, VAGUE, 1.0))[0] == VAGUE
    assert order(decide(unlikely, VAGUE, 0.0))[0] == 0


def test_the_doubt_is_minus_log_of_the_best_codes_probability() -> None:
    text = logits(0.3, 0.25, 0.25, 0.2)
    raised = decide(text, VAGUE, 2.0)[0, VAGUE].item()
    assert raised == pytest.approx(math.log(0.25) - 2 * math.log(0.3), abs=1e-5)


def test_the_codes_keep_their_logits_and_the_argument_is_not_changed() -> None:
    text = logits(0.5, 0.3, 0.15, 0.05)
    kept = text.clone()
    decided = decide(text, VAGUE, 1.0)
    assert torch.equal(text, kept)
    codes = [0, 2, 3]
    assert torch.equal(decided[:, codes], kept[:, codes])


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=3, max_size=8),
    st.floats(0, 5),
    st.floats(0, 5),
    st.floats(0.125, 20, width=32),
)
def test_more_bias_and_more_weight_only_refuse_more(
    values: list[float], one: float, other: float, bias: float
) -> None:
    text = torch.tensor([values], dtype=torch.float64)
    biased = text + bias * torch.nn.functional.one_hot(torch.tensor(VAGUE), len(values))
    less, more = sorted((one, other))

    def refused(of: torch.Tensor, weight: float) -> bool:
        return bool(decide(of, VAGUE, weight)[0].argmax() == VAGUE)

    assert refused(text, less) <= refused(text, more)
    assert refused(text, more) <= refused(biased, more)
