"""Tries a configuration on validation sets that are cut from the training rows, not on the benchmark sets.

Three splits hold out 30% of the extra references that are not on the vague list, 30% of the search
references, and 20% of the vague terms; these descriptions are removed from every source. The script prints
how often the first result is right, at the biases of the vague class that refuse 76% and 70% of the held-out
vague terms, and without the vague class. At the first of these biases, it prints the cross-entropy of the
held-out descriptions with codes, by temperature.

python benchmarks/training_trials.py --data ../shared/data --cache /tmp/cache
python benchmarks/training_trials.py --data ../shared/data --cache /tmp/cache --set max_epochs=8
python benchmarks/training_trials.py --data ../shared/data --cache /tmp/cache --source vague_terms.variants=8
"""

import argparse
import io
import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl
import torch
from training_figures import machine

from training.config import VAGUE_CODE, SearchConfig, parse_config
from training.dataset.merge import CleanedSource, Dataset, merge
from training.embedding.cache import embed
from training.embedding.encoder import Embeddings, Encoder
from training.embedding.transformer import find_transformer
from training.lookup import Lookup
from training.network.head import choose_bfloat16, load_network
from training.network.train import train_network
from training.pipeline import read_and_clean
from training.progress import Progress

CONFIG = Path(__file__).parent / "search-config.toml"
HELD_OUT = {"extra_references": 0.3, "search_references": 0.3, "vague_terms": 0.2}
REFUSED = (0.76, 0.70)
TEMPERATURES = (1.0, 1.2, 1.4, 1.6, 1.8)


@dataclass(frozen=True)
class Split:
    """The dataset to train on, and the held-out descriptions of each source with their codes."""

    seed: int
    dataset: Dataset
    held_out: dict[str, dict[str, set[str]]]


@dataclass(frozen=True)
class Figures:
    """Shares of right first results, for each share of refused vague terms and then without the vague class;
    the biases that were needed for them; and the cross-entropy by temperature.
    """

    extra: tuple[float, ...]
    search: tuple[float, ...]
    biases: tuple[float, ...]
    cross_entropy: tuple[float, ...]


def cut(sources: Sequence[CleanedSource], seed: int, config_seed: int) -> Split:
    codes: dict[str, dict[str, set[str]]] = {}
    for source in sources:
        if source.source.name in HELD_OUT:
            found = codes.setdefault(source.source.name, {})
            for description, code in source.cleaned.kept.select("description", "code").iter_rows():
                found.setdefault(description, set()).add(code)
    vague = codes["vague_terms"].keys()
    held_out = {}
    for name, share in HELD_OUT.items():
        free = sorted(text for text in codes[name] if name == "vague_terms" or text not in vague)
        drawn = random.Random(f"{seed}:{name}").sample(free, round(share * len(free)))
        held_out[name] = {text: codes[name][text] for text in sorted(drawn)}
    gone = pl.Series([text for texts in held_out.values() for text in texts])
    rest = [
        replace(
            source,
            cleaned=replace(
                source.cleaned,
                kept=source.cleaned.kept.filter(~pl.col("description").is_in(gone.implode())),
            ),
        )
        for source in sources
    ]
    return Split(seed, merge(rest, config_seed), held_out)


def trial(config: SearchConfig, split: Split, table: Embeddings, held_out: dict[str, Embeddings]) -> Figures:
    torch.set_num_threads(1)
    trained = train_network(split.dataset, table, config, "cpu", Progress(log=io.StringIO()))
    network = load_network(trained.sizes, {name: value.float() for name, value in trained.weights.items()})
    classes = split.dataset.classes
    vague = classes.index(VAGUE_CODE)
    # For each description: the lead of the vague class over the best code, and whether that code is right.
    lead, right = {}, {}
    with torch.inference_mode():
        logits_of = {name: network(torch.from_numpy(vectors)) for name, vectors in held_out.items()}
        for name, answers in logits_of.items():
            logits = answers.clone()
            of_vague = logits[:, vague].clone()
            logits[:, vague] = -torch.inf
            best = logits.max(dim=1)
            lead[name] = (of_vague - best.values).numpy()
            right[name] = np.array(
                [
                    classes[index] in codes
                    for index, codes in zip(best.indices.tolist(), split.held_out[name].values(), strict=True)
                ]
            )
    biases = [-float(np.quantile(lead["vague_terms"], 1 - share)) for share in REFUSED] + [-np.inf]
    extra, search = (
        tuple(float((right[name] & (lead[name] + bias <= 0)).mean()) for bias in biases)
        for name in ("extra_references", "search_references")
    )
    coded = [name for name in held_out if name != "vague_terms"]
    logits = torch.cat([logits_of[name] for name in coded])
    logits[:, vague] += biases[0]
    rights = [
        [classes.index(code) for code in codes if code in split.dataset.classes]
        for name in coded
        for codes in split.held_out[name].values()
    ]
    entropies = tuple(_cross_entropy(logits / temperature, rights) for temperature in TEMPERATURES)
    return Figures(extra, search, tuple(biases[:-1]), entropies)


def _cross_entropy(logits: torch.Tensor, rights: Sequence[Sequence[int]]) -> float:
    """The mean over those rows (rows, classes) with a right class. Of several, the likeliest counts."""
    log_chances = torch.log_softmax(logits, dim=1)
    likeliest = [row[right].max().item() for row, right in zip(log_chances, rights, strict=True) if right]
    return -float(np.mean(likeliest))


def mean(rows: Iterable[Sequence[float]]) -> list[float]:
    return [float(column) for column in np.mean(list(rows), axis=0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument(
        "--cache", required=True, help="a folder for embeddings, which take minutes the first time"
    )
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--at-once", type=int, default=2, help="the number of splits at a time, each on one thread"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes of the configuration"
    )
    parser.add_argument(
        "--source", nargs="+", default=[], metavar="NAME.KEY=VALUE", help="changes of a source"
    )
    options = parser.parse_args()
    lines = options.config.read_text().splitlines()
    keys = {change.partition("=")[0] for change in options.set}
    sources_changed: dict[str, list[str]] = {}
    for change in options.source:
        name, _, line = change.partition(".")
        sources_changed.setdefault(name, []).append(line)
    text = "\n".join(
        [*options.set, *(line for line in lines if line.partition("=")[0].strip() not in keys)]
        + [f'[[sources]]\nname = "{name}"\n' + "\n".join(lines) for name, lines in sources_changed.items()]
    )
    config = parse_config(text).model_copy(update={"vague_bias": 0.0, "temperature": 1.0})
    quiet = Progress(log=io.StringIO())
    sources = read_and_clean(config, Lookup(options.data, options.data), {}, quiet)
    encoder = Encoder(
        find_transformer(config.transformer),
        "cpu",
        config.embedding_batch_size,
        bfloat16=choose_bfloat16(config.precision, "cpu"),
    )
    with ProcessPoolExecutor(options.at_once, mp_context=get_context("spawn")) as pool:
        running = []
        for seed in options.splits:
            split = cut(sources, seed, config.seed)
            table = embed(split.dataset.embedded, encoder, options.cache, quiet)
            held_out = {
                name: embed(list(texts), encoder, options.cache, quiet)
                for name, texts in split.held_out.items()
            }
            running.append(pool.submit(trial, config, split, table, held_out))
        figures = [one.result() for one in running]

    def shown(values: Sequence[float]) -> str:
        return " / ".join(f"{100 * value:.1f}" for value in values)

    extra = mean(one.extra for one in figures)
    search = mean(one.search for one in figures)
    biases = ", ".join(f"{one.biases[0]:+.2f}" for one in figures)
    entropies = zip(TEMPERATURES, mean(one.cross_entropy for one in figures), strict=True)
    print(
        f"{' '.join([*options.set, *options.source]) or options.config}: at {REFUSED} of vague terms refused "
        f"and at nothing refused: extra references {shown(extra)}, search references {shown(search)}; "
        f"biases at {REFUSED[0]}: {biases}; cross-entropy by temperature "
        f"{', '.join(f'{temperature}: {value:.3f}' for temperature, value in entropies)}; "
        f"splits {options.splits}; {machine()}"
    )


if __name__ == "__main__":
    main()
