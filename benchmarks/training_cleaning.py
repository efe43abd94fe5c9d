"""Measures cleaning of tradeset rows in several languages, in rows per second, against one row at a time.

python benchmarks/training_cleaning.py --data ../shared/data --rows 300000
"""

import argparse
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import polars as pl
import row_at_a_time
from training_figures import PRESENT, machine

from training.cleaning.cleaner import clean
from training.cleaning.codes import Nomenclature
from training.cleaning.pipelines import cleaners_for, read_lists
from training.config import DEFAULT_SOURCES, parse_config
from training.lookup import Lookup
from training.sources.read import read_source

CONFIG = """
name = "cleaning"
version = "0.1.0"
exact_english_terms = "reference_data/exact_english_terms.txt"
partial_english_terms = "reference_data/partial_english_terms.txt"
partial_non_english_terms = "reference_data/partial_non_english_terms.txt"
incorrect_description_pairs_file = "reference_data/incorrect_code_desc_pairs.csv"
phrases_to_remove_file = "reference_data/phrases_to_remove.txt"
"""
DIGITS = 6
(TRADESETS,) = [source for source in DEFAULT_SOURCES if source.name == "tradesets"]
FOREIGN = (
    "chaussures en cuir pour hommes", "vêtements de travail", "jouets en plastique", "pièces de rechange",
    "schuhe aus leder", "ersatzteile für maschinen", "kleidung für frauen", "spielzeug aus holz",
    "zapatos de cuero", "ropa de trabajo", "juguetes de plástico", "piezas de recambio",
)  # fmt: skip
FOREIGN_SHARE = 0.2

Side = Literal["this pipeline", "row at a time"]
Extend = Callable[[str, random.Random], str]


@dataclass(frozen=True)
class Run:
    """One cleaning, including the time to load lingua's models."""

    rows: int
    wall_s: float
    cpu_s: float
    kept: list[tuple[str, str]]

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / self.wall_s

    @property
    def cpu_rate(self) -> float:
        """Rows per second of CPU time."""
        return self.rows / self.cpu_s

    def __str__(self) -> str:
        return (
            f"kept {len(self.kept):,} of {self.rows:,}; {self.wall_s:.1f} s, {self.rate:,.0f} rows/s; "
            f"{self.cpu_s:.1f} s of CPU time, {self.cpu_rate:,.0f} rows/s of it"
        )


def makings(descriptions: list[str]) -> dict[str, Extend]:
    """Ways to make a row from a description that was drawn, by name."""
    return {
        "resampled (real and foreign descriptions, unchanged)": lambda text, _: text,
        "variants (the same, each with a quantity and a size)": lambda text, rng: (
            f"{rng.randint(1, 99)} x {text} {rng.randint(1, 999)}{rng.choice(('ml', 'cm', 'g', ' pcs'))}"
        ),
        "pairs (two descriptions joined: nearly all distinct, and twice as long)": lambda text, rng: (
            f"{text} {rng.choice(descriptions)}"
        ),
    }


def made(real: pl.DataFrame, extend: Extend, rows: int) -> pl.DataFrame:
    rng = random.Random(0)
    codes, descriptions = real["code"].to_list(), real["description"].to_list()
    drawn = []
    for _ in range(rows):
        text = rng.choice(FOREIGN if rng.random() < FOREIGN_SHARE else descriptions)
        drawn.append((rng.choice(codes), extend(text, rng)))
    return pl.DataFrame(drawn, schema=["code", "description"], orient="row")


def cleaned(side: Side, rows: pl.DataFrame, data: Path) -> Run:
    lists = read_lists(parse_config(CONFIG), Lookup(data, Path.cwd()))
    start, cpu = time.monotonic(), time.process_time()
    kept = (
        clean(rows, cleaners_for(TRADESETS, DIGITS, lists, Nomenclature())).kept.iter_rows()
        if side == "this pipeline"
        else row_at_a_time.clean(rows.iter_rows(), lists, DIGITS)
    )
    took, cpu = time.monotonic() - start, time.process_time() - cpu
    return Run(rows.height, took, cpu, list(kept))


def afresh(side: Side, rows: pl.DataFrame, data: Path) -> Run:
    """Run in a process of its own, so that neither side finds models that the other has loaded."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(cleaned, side, rows, data).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=300_000)
    options = parser.parse_args()
    folder = options.data / "raw_source_data" / "tradesets_descriptions"
    real = read_source(TRADESETS, list(folder.glob("*.csv"))).frame.select("code", "description")
    frames = {"real": real}
    for name, extend in makings(real["description"].to_list()).items():
        frames[name] = made(real, extend, options.rows)

    print(f"{machine()}; each figure includes loading lingua's models")
    print(f"the team's present pipeline was measured on {PRESENT['machine']}, with other 300,000 rows")
    for name, rows in frames.items():
        texts = rows["description"]
        print(f"\n{name}: {texts.n_unique():,} distinct, {texts.str.len_chars().mean():.0f} characters")
        peer, ours = (afresh(side, rows, options.data) for side in ("row at a time", "this pipeline"))
        differ = sum(a != b for a, b in zip_longest(ours.kept, peer.kept))
        present = float(PRESENT["cleaning_real_rows_per_s" if rows is real else "cleaning_rows_per_s"])
        print(f"  row at a time: {peer}")
        print(f"  this pipeline: {ours}")
        print(
            f"  {ours.rate / peer.rate:.1f} times the rows per second of one row at a time, "
            f"{ours.cpu_rate / peer.cpu_rate:.1f} times per second of CPU time; {differ:,} kept rows differ; "
            f"{ours.rate / present:.1f} times the {present:,.0f} of the present pipeline"
        )


if __name__ == "__main__":
    main()
