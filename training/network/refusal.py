"""Decides which texts are too vague to be answered, also by how doubtful their best code is."""

import torch
from torch import Tensor


def decide(logits: Tensor, vague: int, doubt_weight: float) -> Tensor:
    """The logits (rows, classes) with the class `vague` either first or last in each row.

    It is first if its logit plus `doubt_weight` times the doubt is above that of the best code. The doubt is
    −log of the probability of the best code, so a text may be refused because no code is likely. Where it is
    last, at −∞, the vague class takes no probability from the codes, and does not end the list of results.
    """
    best = logits.index_fill(1, torch.tensor(vague), -torch.inf).amax(dim=1)
    raised = logits[:, vague] + doubt_weight * (logits.logsumexp(dim=1) - best)
    decided = logits.clone()
    decided[:, vague] = torch.where(raised > best, raised, -torch.inf)
    return decided
