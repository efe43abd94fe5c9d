"""Merges cleaned sources into what the network learns: texts, classes, and weighted pairs of both."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from training.cleaning.cleaner import Cleaned, clean
from training.cleaning.codes import Nomenclature, nomenclature_of, repaired
from training.cleaning.pipelines import CleaningLists, cleaners_for
from training.config import VAGUE_CODE, SourceConfig
from training.dataset.variants import Indices, VariantDraw, Variants, make_variants
from training.errors import FailureCode, TrainingError
from training.sources.read import SourceRows


@dataclass(frozen=True)
class CleanedSource:
    source: SourceConfig
    read: SourceRows
    cleaned: Cleaned

    @property
    def repaired(self) -> Counter[str]:
        """How many rows had their code repaired, by cleaner."""
        return repaired(self.cleaned.changed)


@dataclass(frozen=True)
class Dataset:
    """Distinct pairs of text and class, each with the weight that its sources give it.

    texts and classes are sorted. Pair i is texts[text_of[i]] with classes[class_of[i]] and weight[i] > 0, and
    pairs are sorted by text, then class. `variants` are shorter forms of the texts. `conflicts` are the rows
    of authoritative sources that were overruled by another one (description, source, code, winner,
    winning_codes). `unknown` are the pairs whose code no source created (source, code, description).
    `rows_by_source` are the rows that are left of each source after cleaning.
    """

    texts: list[str]
    classes: list[str]
    text_of: Indices
    class_of: Indices
    weight: npt.NDArray[np.float32]
    variants: Variants
    conflicts: pl.DataFrame
    unknown: pl.DataFrame
    counts: dict[str, int]
    rows_by_source: dict[str, int]

    @property
    def embedded(self) -> list[str]:
        """The texts followed by their variants: everything that needs an embedding."""
        return self.texts + self.variants.texts

    @property
    def relative_weight(self) -> npt.NDArray[np.float32]:
        """The weights with mean 1, so that learning rates do not depend on the weights of the sources."""
        relative: npt.NDArray[np.float64] = self.weight / self.weight.mean(dtype=np.float64)
        return relative.astype(np.float32)

    def variant_draw(self, share: float) -> VariantDraw:
        """Draws for each epoch which texts and variants stand for the pairs."""
        return VariantDraw(self.variants, self.text_of, len(self.texts), share)

    @cached_property
    def sha256(self) -> str:
        """A digest of everything that the network learns from, besides the embeddings of the texts."""
        digest = hashlib.sha256(json.dumps([self.classes, self.texts, self.variants.texts]).encode())
        of_variants = (self.variants.first, self.variants.count, self.variants.members)
        for array in (self.text_of, self.class_of, self.weight, *of_variants):
            digest.update(repr((array.dtype.str, array.shape)).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def _known_codes(sources: Iterable[SourceRows]) -> Nomenclature:
    """The nomenclature, as far as the sources that create codes have it."""
    return nomenclature_of(
        code
        for read in sources
        if read.source.creates_codes and read.source.code != VAGUE_CODE
        for code in read.frame["code"].unique()
    )


def clean_sources(rows: Sequence[SourceRows], digits: int, lists: CleaningLists) -> Iterator[CleanedSource]:
    """Clean all sources. Codes that lost a digit are compared with those of the sources that create codes."""
    nomenclature = _known_codes(rows)
    for one in rows:
        cleaners = cleaners_for(one.source, digits, lists, nomenclature)
        yield CleanedSource(one.source, one, clean(one.frame, cleaners))


def merge(sources: Sequence[CleanedSource], seed: int = 0) -> Dataset:
    """Merge the sources. Earlier sources take precedence over later ones.

    - The classes are the codes of the sources that create codes. Rows with other codes are left out.
    - If authoritative sources contain a description, the codes of the first of them hold. The weight that
      other sources give to the description is added to these codes.
    - The seed is used to draw the variants.
    """
    rows = _distinct(sources)
    classes = sorted(rows.filter(pl.col("creates_codes"))["code"].unique().to_list())
    if not classes:
        raise TrainingError(
            FailureCode.NO_CLASSES,
            "no source that creates codes has a usable code. "
            "Check creates_codes, digits and the cleaning report.",
        )
    known = rows.filter(pl.col("code").is_in(classes))
    unknown = rows.filter(~pl.col("code").is_in(classes)).select("source", "code", "description")
    winners = _winners(known)
    overruled = known.join(winners.select("description").unique(), on="description", how="semi").join(
        winners, on=["description", "code"], how="anti"
    )
    pairs = _weighted(known, overruled, winners)

    texts = pairs["description"].unique().sort()
    text_of = pairs["description"].replace_strict(texts, pl.int_range(len(texts), eager=True))
    class_of = pairs["code"].replace_strict(classes, list(range(len(classes))))
    wanted = known.group_by("description").agg(pl.col("variants").max()).sort("description")
    variants = make_variants(texts.to_list(), wanted["variants"].to_list(), seed)
    conflicts = _conflicts(overruled, winners)
    return Dataset(
        texts=texts.to_list(),
        classes=classes,
        text_of=text_of.to_numpy().astype(np.int64),
        class_of=class_of.to_numpy().astype(np.int64),
        weight=pairs["weight"].to_numpy().astype(np.float32),
        variants=variants,
        conflicts=conflicts,
        unknown=unknown,
        counts={
            "rows": sum(source.read.frame.height for source in sources),
            "broken_rows": sum(len(source.read.broken) for source in sources),
            "dropped_rows": sum(source.cleaned.dropped.height for source in sources),
            "repaired_codes": sum(source.repaired.total() for source in sources),
            "unknown_codes": unknown.height,
            "overruled": overruled.height,
            "conflicts": conflicts["description"].n_unique(),
            "texts": len(texts),
            "variants": len(variants.texts),
            "classes": len(classes),
            "pairs": pairs.height,
            "samples": round(float(pairs["weight"].sum())),
        },
        rows_by_source={source.source.name: source.cleaned.kept.height for source in sources},
    )


def _distinct(sources: Sequence[CleanedSource]) -> pl.DataFrame:
    """Each pair once for each source, sorted, so that the order of files and rows has no further effect."""
    frames = [
        source.cleaned.kept.select("code", "description")
        .unique()
        .with_columns(
            rank=pl.lit(rank, dtype=pl.Int64),
            source=pl.lit(source.source.name),
            weight=pl.lit(float(source.source.weight)),
            variants=pl.lit(source.source.variants, dtype=pl.Int64),
            authoritative=pl.lit(source.source.authoritative),
            creates_codes=pl.lit(source.source.creates_codes),
        )
        for rank, source in enumerate(sources)
    ]
    if not frames:
        raise TrainingError(
            FailureCode.NO_CLASSES,
            "the configuration has no source of data. "
            "Set cn_data_file, or add [[sources]] that create codes.",
        )
    return pl.concat(frames).sort("description", "code", "rank")


def _winners(known: pl.DataFrame) -> pl.DataFrame:
    """For each description, the codes (one or more) that its first authoritative source gives it."""
    authoritative = known.filter(pl.col("authoritative"))
    first = pl.col("rank") == pl.col("rank").min().over("description")
    return authoritative.filter(first).select(
        "description", "code", winner="source", codes=pl.len().over("description")
    )


def _weighted(known: pl.DataFrame, overruled: pl.DataFrame, winners: pl.DataFrame) -> pl.DataFrame:
    """Add up weights over sources. The weight of an overruled row is split equally over the winning codes."""
    kept = known.join(
        overruled.select("description", "code", "rank"), on=["description", "code", "rank"], how="anti"
    ).select("description", "code", "rank", "weight")
    moved = (
        overruled.select("description", "rank", "weight")
        .join(winners, on="description", how="inner")
        .select("description", "code", "rank", weight=pl.col("weight") / pl.col("codes"))
    )
    # Sorted before summing, because floating-point sums depend on their order.
    return (
        pl.concat([kept, moved])
        .sort("description", "code", "rank", "weight")
        .group_by("description", "code", maintain_order=True)
        .agg(pl.col("weight").sum())
        .sort("description", "code")
    )


def _conflicts(overruled: pl.DataFrame, winners: pl.DataFrame) -> pl.DataFrame:
    """Rows of authoritative sources that were overruled, with the source that won and its codes."""
    won = winners.group_by("description", "winner").agg(winning_codes=pl.col("code").sort().str.join(" "))
    return (
        overruled.filter(pl.col("authoritative"))
        .join(won, on="description", how="inner")
        .select("description", "source", "code", "winner", "winning_codes")
        .sort("description", "source", "code")
    )
