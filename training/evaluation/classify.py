"""Classifies descriptions: each gets codes with scores."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from training.cleaning.cleaner import Cleaner
from training.cleaning.text import normalised
from training.config import VAGUE_CODE, PatternsMatch, SearchConfig
from training.distributed import Embeddings
from training.embedding.joined import Embedder
from training.evaluation.deployed import refused
from training.network.package import Model
from training.progress import Progress

_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Limits:
    """The limits at which a list of results ends."""

    limit: int = 5
    best_share: float = 0.05
    minimum_score: float = 0.01
    minimum_of_best: float = 0.05
    cumulated_score: float = 0.9

    @classmethod
    def of(cls, config: SearchConfig) -> "Limits":
        return cls(
            config.classification_limit,
            config.classification_best_share,
            config.classification_minimum_score,
            config.classification_minimum_of_best,
            config.classification_cumulated_score,
        )


@dataclass(frozen=True)
class Result:
    """A code with the configured number of digits, and its score in (0, 1]."""

    code: str
    score: float


class Classifier:
    """Answers as the deployed service does.

    It refuses what `cleaners` drop. Then it answers from the lists if it can (first vague terms, then
    references), otherwise from the network.
    """

    def __init__(
        self,
        model: Model,
        encoder: Embedder,
        limits: Limits,
        digits: int,
        *,
        cleaners: Sequence[Cleaner] = (),
        patterns_match: PatternsMatch = "start",
    ) -> None:
        self.model = model
        self.cleaners = tuple(cleaners)
        self._encoder = encoder
        self._limits = limits
        self._digits = digits
        self._patterns_match = patterns_match

    def classify(self, description: str) -> list[Result]:
        """The results, best first. There are none for a description that is too vague."""
        text = normalised(description)
        if refused([text], self.cleaners):
            return []
        known = self._from_lists(text)
        if known is not None:
            return known
        return self._from_network(self._encoder.encode_one(text)[None, :])[0]

    def classify_all(self, descriptions: Sequence[str], progress: Progress) -> list[list[Result]]:
        """The results of each description, in the given order. Each distinct text is embedded once."""
        texts = [normalised(description) for description in descriptions]
        distinct = list(dict.fromkeys(texts))
        dropped = refused(distinct, self.cleaners)
        found = {text: [] if text in dropped else self._from_lists(text) for text in distinct}
        asked = sorted(text for text, results in found.items() if results is None)
        if asked:
            embeddings = self._encoder.encode(asked, progress)
            found |= dict(zip(asked, self._from_network(embeddings), strict=True))
        return [found[text] or [] for text in texts]

    def _from_lists(self, text: str) -> list[Result] | None:
        """None if no list contains the text. A term on both lists is vague, which is the team's rule."""
        answers = self.model.answers
        if text in answers.vague_terms or any(self._matches(pattern, text) for pattern in self._patterns):
            return []
        code = answers.references.get(text)
        return None if code is None else [Result(code[: self._digits], 1.0)]

    def _matches(self, pattern: re.Pattern[str], text: str) -> bool:
        found = pattern.match(text) if self._patterns_match == "start" else pattern.search(text)
        return found is not None

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        # Texts are in lower case when they are looked up, but patterns may not be.
        return [re.compile(pattern, re.IGNORECASE) for pattern in self.model.answers.vague_patterns]

    @cached_property
    def _groups(self) -> tuple[list[str], Tensor]:
        """The sorted distinct codes, cut to the digits, and for each class the index of its code."""
        codes = [code if code == VAGUE_CODE else code[: self._digits] for code in self.model.classes]
        distinct = sorted(set(codes))
        index = {code: position for position, code in enumerate(distinct)}
        return distinct, torch.tensor([index[code] for code in codes])

    def _from_network(self, embeddings: Embeddings) -> list[list[Result]]:
        """The results for each row of the embeddings (n, input_size)."""
        codes, group_of = self._groups
        best = max(1, math.ceil(self._limits.best_share * len(codes)))
        results: list[list[Result]] = []
        with torch.inference_mode():
            for start in range(0, len(embeddings), _ROWS_AT_ONCE):
                rows = torch.from_numpy(np.ascontiguousarray(embeddings[start : start + _ROWS_AT_ONCE]))
                logits = log_sum_exp_by_group(self.model.logits(rows), group_of, len(codes))
                top = logits.topk(best, dim=1)
                scores = torch.softmax(top.values, dim=1)
                results += [
                    self._cut(row_scores, [codes[index] for index in row_indices])
                    for row_scores, row_indices in zip(
                        scores.tolist(), top.indices[:, : self._limits.limit + 1].tolist(), strict=True
                    )
                ]
        return results

    def _cut(self, scores: Sequence[float], codes: Sequence[str]) -> list[Result]:
        """The results up to the first limit that is reached. Scores and codes are sorted, best first."""
        results: list[Result] = []
        cumulated = 0.0
        for code, score in zip(codes, scores, strict=False):
            least = max(self._limits.minimum_score, self._limits.minimum_of_best * scores[0])
            if code == VAGUE_CODE or score < least or len(results) == self._limits.limit:
                break
            results.append(Result(code, score))
            cumulated += score
            if cumulated >= self._limits.cumulated_score:
                break
        return results


def log_sum_exp_by_group(logits: Tensor, group_of: Tensor, groups: int) -> Tensor:
    """Sum the probabilities of the classes in each group, in log space.

    logits (n, classes); group_of (classes,) int64 in [0, groups). Returns (n, groups).
    """
    if groups == logits.shape[1]:
        # With as many groups as classes, each class is a group, and both are sorted in the same order.
        return logits
    largest = logits.amax(dim=1, keepdim=True)
    sums = logits.new_zeros(len(logits), groups).index_add_(1, group_of, torch.exp(logits - largest))
    # A group far below the best underflows to 0. The log of the smallest float keeps it last.
    return torch.log(sums.clamp_min(torch.finfo(sums.dtype).tiny)) + largest
