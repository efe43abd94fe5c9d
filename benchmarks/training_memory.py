"""Measures the peak memory from rows to the trained network, and the memory for each further text.

Texts and embeddings are synthetic.

python benchmarks/training_memory.py --texts 250000 1000000
"""

import argparse
import io
import itertools
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from training_figures import machine

from training.cleaning.language import LanguageRules
from training.cleaning.pipelines import CleaningLists
from training.config import parse_config
from training.dataset.merge import clean_sources, merge
from training.lookup import Lookup
from training.network.train import train_network
from training.progress import Progress
from training.sources.read import files_of, read_source

CONFIG = """
name = "memory"
version = "0.1.0"
device = "cpu"
cn_data_file = "codes.csv"
tradesets_data_dir = "trade"
hidden_size = 1024
max_epochs = 1
model_batch_size = 4096
[[sources]]
name = "tradesets"
cleaning = ["lower", "strip", "drop_empty", "drop_short", "code_shape", "drop_noise", "plurals"]
"""
CLASSES = 5_614
DIMENSION = 384


def one(texts: int) -> None:
    """Write the files, then read, clean, merge and train. Prints the peak of the resident set."""
    config = parse_config(CONFIG)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "trade").mkdir()
        with (folder / "codes.csv").open("w") as file:
            file.writelines(f"{n},{n + 100000:06}00,goods of kind {n}\n" for n in range(CLASSES))
        with (folder / "trade" / "t.csv").open("w") as file:
            file.writelines(
                f"{n % CLASSES + 100000:06}00,consignment of goods number {n} in a box for retail\n"
                for n in range(texts)
            )
        lookup = Lookup(folder, folder)
        lists = CleaningLists((), (), LanguageRules(("ENGLISH",), ("ENGLISH", "GERMAN"), 0.7))
        rows = [read_source(source, files_of(source, lookup)) for source in config.sources]
        sources = list(clean_sources(rows, 6, lists))
    dataset = merge(sources)
    del sources
    embeddings = np.random.default_rng(0).standard_normal(
        (len(dataset.embedded), DIMENSION), dtype=np.float32
    )
    train_network(dataset, embeddings, config, "cpu", Progress(log=io.StringIO()))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, nargs="+", default=[250_000, 1_000_000])
    parser.add_argument("--one", type=int)
    options = parser.parse_args()
    if options.one:
        one(options.one)
        return
    print(f"{machine()}; {CLASSES} classes, {DIMENSION} dimensions, hidden size 1,024")
    peaks = {}
    for texts in options.texts:
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(texts)], check=True, capture_output=True, text=True
        )
        peaks[texts] = int(done.stdout) * 1024
        print(
            f"{texts:,} texts: peak {peaks[texts] / 2**30:.2f} GiB, {time.monotonic() - start:.0f} s",
            flush=True,
        )
    for (fewer, low), (more, high) in itertools.pairwise(peaks.items()):
        print(f"each further text: {(high - low) / (more - fewer):,.0f} bytes")


if __name__ == "__main__":
    main()
