"""Cleaning of mixed-language tradeset rows, made from the team's: rows a second.

python benchmarks/training_cleaning.py --data ../shared/data --rows 300000
"""

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
from training_figures import PRESENT, machine

from training.cleaning.cleaner import clean
from training.cleaning.pipelines import cleaners_for, read_lists
from training.config import DEFAULT_SOURCES, parse_config
from training.files import Lookup
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
FOREIGN = (
    "chaussures en cuir pour hommes", "vêtements de travail", "jouets en plastique", "pièces de rechange",
    "schuhe aus leder", "ersatzteile für maschinen", "kleidung für frauen", "spielzeug aus holz",
    "zapatos de cuero", "ropa de trabajo", "juguetes de plástico", "piezas de recambio",
)  # fmt: skip


def _sized(text: str, rng: random.Random) -> str:
    """A description with a quantity and a size, as a trader adds them."""
    return f"{rng.randint(1, 99)} x {text} {rng.randint(1, 999)}{rng.choice(('ml', 'cm', 'g', ' pcs'))}"


def _paired(descriptions: list[str]) -> Callable[[str, random.Random], str]:
    """Two descriptions in a row: nearly all distinct, and twice as long as real ones."""
    return lambda text, rng: f"{text} {rng.choice(descriptions)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=300_000)
    options = parser.parse_args()
    config = parse_config(CONFIG)
    lists = read_lists(config, Lookup(options.data, Path.cwd()))
    (tradesets,) = [source for source in DEFAULT_SOURCES if source.name == "tradesets"]
    folder = options.data / "raw_source_data" / "tradesets_descriptions"
    real = read_source(tradesets, list(folder.glob("*.csv"))).frame
    rng = random.Random(0)
    descriptions = real["description"].to_list()
    codes = real["code"].to_list()
    frames = {"real rows": real.select("code", "description")}
    for name, extend in (("variants", _sized), ("pairs", _paired(descriptions))):
        made = []
        for _ in range(options.rows):
            text = rng.choice(FOREIGN) if rng.random() < 0.2 else rng.choice(descriptions)
            made.append((rng.choice(codes), extend(text, rng)))
        frames[name] = pl.DataFrame(made, schema=["code", "description"], orient="row")

    print(f"present pipeline: {PRESENT['cleaning_rows_per_s']} rows/s on 300,000 rows; {PRESENT['machine']}")
    print(f"this one: {options.rows} rows made from {options.data}; {machine()}")
    for name, rows in frames.items():
        start, cpu = time.monotonic(), time.process_time()
        cleaned = clean(rows, cleaners_for(tradesets, 6, lists))
        took, cpu = time.monotonic() - start, time.process_time() - cpu
        rate = rows.height / took
        print(
            f"{name}: {rows.height:,} in {took:.1f} s, {rate:,.0f} rows/s, "
            f"{rows.height / cpu:,.0f} rows a second of one core, "
            f"{rate / float(PRESENT['cleaning_rows_per_s']):.1f} times; dropped {cleaned.reasons}"
        )


if __name__ == "__main__":
    main()
