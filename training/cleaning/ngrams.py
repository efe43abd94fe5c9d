"""Computes lingua's answers for many texts from its answers for their n-grams, which is much faster.

For each language, lingua adds up the log probabilities of the distinct n-grams of 1 to 5 letters in the
words of a text. (If a language does not know an n-gram, its longest known beginning is used instead.) Lingua
divides the sum by the number of distinct letters, and takes the softmax over the languages. This holds for
texts of less than 120 letters that use plain Latin letters only, because other letters hint at a language.

Many texts share their n-grams, so it is enough to ask lingua about each n-gram once.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from lingua import LanguageDetector

_LONGEST: Final = 5
# Fewer than 120 characters means fewer than 120 letters. Other letters than these hint at a language.
_PLAIN: Final = pl.col("text").str.contains("^[a-z]+(?: [a-z]+)*$") & (pl.col("text").str.len_chars() < 120)
# For an n-gram, lingua needs about a third of the time that it needs for a text.
_WORTHWHILE: Final = 2
# Our sums are rounded differently from lingua's: by at most 3e-15 in 266,589 texts. If the confidences are
# closer to the threshold than this, lingua itself is asked.
_ROUNDING: Final = 1e-9
_CHECKED: Final = 200
_CHUNK: Final = 5_000

Values = npt.NDArray[np.float64]


def answers_by_ngrams(
    texts: pl.Series, detector: "LanguageDetector", languages: Sequence[str], minimum_relative_distance: float
) -> pl.DataFrame:
    """Lingua's answers for those of the (distinct) texts for which they can be computed with certainty.

    Returns the columns text and language; the language is null if lingua is undecided. There are no rows if
    there are too few texts to make this worthwhile, or if lingua does not work as described above, which is
    checked by asking it about a sample of the texts.
    """
    plain = texts.to_frame("text").filter(_PLAIN).with_row_index("row")
    none = plain.select("text", language=pl.lit(None, dtype=pl.String)).clear()
    tokens = plain.select("row", word=pl.col("text").str.split(" ")).explode("word")
    words = tokens["word"].unique()
    ids: dict[str, int] = {}
    in_words = _incidence(words, ids)
    if len(ids) >= _WORTHWHILE * plain.height:
        return none
    scores = _scores(ids, detector, languages)
    if scores is None:
        return none

    word_of = tokens["word"].replace_strict(words, pl.int_range(len(words), eager=True))
    in_texts = csr_matrix(
        (np.ones(len(word_of), np.float32), (tokens["row"].to_numpy(), word_of.to_numpy())),
        (plain.height, len(words)),
    )
    starts = range(0, plain.height, _CHUNK)
    confidences = np.concatenate(
        [_confidences(in_texts[start : start + _CHUNK] @ in_words, scores) for start in starts]
    )
    sample = plain.gather_every(1 + plain.height // _CHECKED)
    said = _asked(sample["text"].to_list(), detector, languages)
    if np.abs(said - confidences[sample["row"].to_numpy()]).max() > _ROUNDING:
        return none

    second, first = np.sort(confidences, axis=1)[:, -2:].T
    best = pl.Series(languages).gather(confidences.argmax(axis=1))
    return (
        plain.with_columns(best=best, ahead=pl.Series(first - second - minimum_relative_distance))
        .filter(pl.col("ahead").abs() > _ROUNDING)
        .select("text", language=pl.when(pl.col("ahead") > 0).then(pl.col("best")))
    )


def _incidence(words: Iterable[str], ids: dict[str, int]) -> csr_matrix:
    """(word, n-gram): 1 if the word contains the n-gram. New n-grams get the next free id."""
    columns: list[int] = []
    ends = [0]
    for word in words:
        found = {
            ids.setdefault(word[start : start + length], len(ids))
            for length in range(1, min(_LONGEST, len(word)) + 1)
            for start in range(len(word) - length + 1)
        }
        columns += found
        ends.append(len(columns))
    return csr_matrix((np.ones(len(columns), np.float32), columns, ends), (len(ends) - 1, len(ids)))


def _scores(ids: dict[str, int], detector: "LanguageDetector", languages: Sequence[str]) -> Values | None:
    """(n-gram, language + 1): log probabilities minus the first language's. The last column marks letters.

    When asked about an n-gram, lingua also counts the shorter n-grams in it. These are subtracted, the
    shortest first. Returns None if lingua excludes a language, or if a language does not know a letter.
    """
    ngrams = list(ids)
    confidences = _asked(ngrams, detector, languages)
    if not (confidences > 0).all():
        return None
    letters = np.array([len(set(ngram)) for ngram in ngrams])
    lengths = np.array([len(ngram) for ngram in ngrams])
    sums = np.log(confidences / confidences[:, :1]) * letters[:, None]
    in_ngrams = _incidence(ngrams, ids)
    scores = np.zeros_like(sums)
    for length in range(1, _LONGEST + 1):
        these = lengths == length
        scores[these] = sums[these] - in_ngrams[these] @ scores
    return np.column_stack([scores, lengths == 1])


def _confidences(counts: csr_matrix, scores: Values) -> Values:
    """(text, language): lingua's confidences, computed from the n-grams in each text."""
    counts.data[:] = 1
    sums = np.asarray(counts @ scores)
    exponents = sums[:, :-1] / sums[:, -1:]
    shares = np.exp(exponents - exponents.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _asked(texts: Sequence[str], detector: "LanguageDetector", languages: Sequence[str]) -> Values:
    """(text, language): the confidences that lingua itself gives."""
    column = {name: index for index, name in enumerate(languages)}
    confidences = np.zeros((len(texts), len(languages)))
    for start in range(0, len(texts), _CHUNK):
        said = detector.compute_language_confidence_values_in_parallel(list(texts[start : start + _CHUNK]))
        for row, values in enumerate(said, start):
            for value in values:
                confidences[row, column[value.language.name]] = value.value
    return confidences
