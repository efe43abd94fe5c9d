"""Tries a configuration on validation sets that are cut from the training rows, not on the benchmark sets.

Three splits hold out 30% of the extra references that are not on the vague list, 30% of the search
references, and 20% of the vague terms; these descriptions are removed from every source. The script prints
how often the first result, and one of the first five, is right: at the biases of the vague class that refuse
76% and 70% of the held-out vague terms, and without the vague class. At the first of these biases, it prints
the cross-entropy of the held-out descriptions with codes, by temperature. It can keep what was answered
rightly, and compare another configuration with it, description by description.

python benchmarks/training_trials.py --data ../shared/data --cache cache --keep a.npz
python benchmarks/training_trials.py --data ../shared/data --cache cache --tuning epochs=3 --against a.npz
python benchmarks/training_trials.py --data ../shared/data --cache cache --set max_epochs=8
python benchmarks/training_trials.py --data ../shared/data --cache cache --source vague_terms.variants=8
"""

import argparse
import io
import random
import re
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl
import tomli
import torch
from training_figures import machine
from training_paired import Answers, differences

from training.checkpoints import NO_CHECKPOINTS
from training.cleaning.pipelines import read_lists
from training.config import VAGUE_CODE, SearchConfig, TuningConfig, parse_config
from training.dataset.merge import CleanedSource, Dataset, merge
from training.dataset.prepare import read_and_clean
from training.distributed import ALONE
from training.embedding.cache import embed
from training.embedding.encoder import Encoder
from training.embedding.transformer import Transformer, find_transformer
from training.lookup import Lookup
from training.network.head import choose_bfloat16, load_network
from training.network.train import train_network
from training.progress import Progress
from training.tuning.stage import Embedding

CONFIG = Path(__file__).parent / "search-config.toml"
HELD_OUT = {"extra_references": 0.3, "search_references": 0.3, "vague_terms": 0.2}
CODED = ("extra_references", "search_references")
REFUSED = (0.76, 0.70)
RANKS = (1, 5)
TEMPERATURES = (1.0, 1.2, 1.4, 1.6, 1.8)


@dataclass(frozen=True)
class Split:
    """The dataset to train on, and the held-out descriptions of each source with their codes."""

    seed: int
    dataset: Dataset
    held_out: dict[str, dict[str, set[str]]]


@dataclass(frozen=True)
class Figures:
    """What was answered rightly, and how sure the network was of it.

    right[rank][set] (levels, rows) says whether one of the first `rank` results of a description is right, at
    each share of refused vague terms and then without the vague class. The biases are those that were needed
    for the shares. The cross-entropy is by temperature.
    """

    right: dict[int, dict[str, Answers]]
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


def trial(config: SearchConfig, split: Split, cache: str) -> Figures:
    torch.set_num_threads(1)
    quiet = Progress(log=io.StringIO())
    transformer = find_transformer(config.transformer)
    bfloat16 = choose_bfloat16(config.precision, "cpu")

    def encoder_of(one: Transformer) -> Encoder:
        return Encoder(one, "cpu", config.embedding_batch_size, bfloat16=bfloat16)

    embedding = Embedding(split.dataset, transformer, encoder_of, cache, quiet, ALONE)
    with tempfile.TemporaryDirectory() as folder:
        if config.tuning is None:
            embedded, used = embedding.with_original(), [transformer]
        else:
            embedded = embedding.with_tuned(config, config.tuning, "cpu", Path(folder), NO_CHECKPOINTS)
            used = list(embedded.transformers.values())
        held_out = {
            name: np.hstack([embed(list(texts), encoder_of(one), cache, quiet) for one in used])
            for name, texts in split.held_out.items()
        }
    trained = train_network(split.dataset, embedded.table, config, "cpu", quiet, views=embedded.views)
    network = load_network(trained.sizes, {name: value.float() for name, value in trained.weights.items()})
    given = {name: torch.from_numpy(vectors) for name, vectors in held_out.items()}
    with torch.inference_mode():
        logits = {name: network(vectors) for name, vectors in given.items()}
        if trained.neighbours is not None:
            classes = len(split.dataset.classes)
            logits = {
                name: one + trained.neighbours.logits(given[name], classes) for name, one in logits.items()
            }
    return judge(logits, split, config.tuning.doubt_weight if config.tuning else 0.0)


def judge(logits: dict[str, torch.Tensor], split: Split, doubt_weight: float) -> Figures:
    """The logits (rows, classes) of each set of held-out descriptions."""
    index = {code: position for position, code in enumerate(split.dataset.classes)}
    vague = index[VAGUE_CODE]
    codes_only = {name: one.index_fill(1, torch.tensor(vague), -torch.inf) for name, one in logits.items()}
    needed = {name: bias_that_refuses(one, vague, doubt_weight) for name, one in logits.items()}
    biases = [float(np.quantile(needed["vague_terms"].numpy(), share)) for share in REFUSED]
    right: dict[int, dict[str, Answers]] = {rank: {} for rank in RANKS}
    log_chances, rights = [], []
    for name in CODED:
        known = [[index[code] for code in codes if code in index] for codes in split.held_out[name].values()]
        best = torch.tensor(
            [
                one[row].max().item() if row else -torch.inf
                for one, row in zip(codes_only[name], known, strict=True)
            ]
        )
        place = (codes_only[name] > best[:, None]).sum(dim=1)
        # A list of results ends at the vague class, which is last in an answer with a doubt weight.
        shown = needed[name] if doubt_weight else best - logits[name][:, vague]
        for rank in RANKS:
            levels = [(place < rank) & (shown >= bias) for bias in biases]
            right[rank][name] = torch.stack([*levels, (place < rank) & best.isfinite()]).numpy()
        biased = logits[name].index_add(1, torch.tensor([vague]), torch.full((len(place), 1), biases[0]))
        log_chances.append(codes_only[name] if doubt_weight else biased)
        rights += known
    entropies = tuple(
        _cross_entropy(torch.cat(log_chances) / temperature, rights) for temperature in TEMPERATURES
    )
    return Figures(right, tuple(biases), entropies)


def bias_that_refuses(logits: torch.Tensor, vague: int, doubt_weight: float) -> torch.Tensor:
    """(rows, classes) → the lowest bias of the vague class with which each row (rows,) is refused."""
    codes = logits.index_fill(1, torch.tensor(vague), -torch.inf)
    best = codes.amax(dim=1)
    others = codes.logsumexp(dim=1) - best
    # How far the vague class is above the best code. This is 0 without doubts, and below 0 with them.
    low, high = torch.full_like(best, -200.0), torch.zeros_like(best)
    for _ in range(40 if doubt_weight else 0):
        middle = (low + high) / 2
        is_refused = middle + doubt_weight * torch.logaddexp(others, middle) > 0
        low, high = torch.where(is_refused, low, middle), torch.where(is_refused, middle, high)
    return best + high - logits[:, vague]


def _cross_entropy(logits: torch.Tensor, rights: Sequence[Sequence[int]]) -> float:
    """The mean over those rows (rows, classes) with a right class. Of several, the likeliest counts."""
    log_chances = torch.log_softmax(logits, dim=1)
    likeliest = [row[right].max().item() for row, right in zip(log_chances, rights, strict=True) if right]
    return -float(np.mean(likeliest))


def shown(options: argparse.Namespace) -> str:
    tuning = [] if options.tuning is None else ["tuning:", *options.tuning]
    return " ".join([*options.set, *options.source, *tuning])


def mean(rows: Iterable[Sequence[float]]) -> list[float]:
    return [float(column) for column in np.mean(list(rows), axis=0)]


def changed(
    file: Path, keys: Sequence[str], sources: Sequence[str], tuning: Sequence[str] | None
) -> SearchConfig:
    """The configuration with changes of its keys, sources and tuning.

    It has no bias, and no temperature that is not among the changes.
    """
    names = {change.partition("=")[0] for change in keys}
    tables: dict[str, list[str]] = {}
    for change in sources:
        name, _, line = change.partition(".")
        tables.setdefault(name, []).append(line)
    flat, *rest = re.split(r"^(?=\[)", file.read_text(), maxsplit=1, flags=re.MULTILINE)
    text = "\n".join(
        [*keys, *(line for line in flat.splitlines() if line.partition("=")[0].strip() not in names), *rest]
        + [f'[[sources]]\nname = "{name}"\n' + "\n".join(lines) for name, lines in tables.items()]
    )
    config = parse_config(text).model_copy(update={"vague_bias": 0.0})
    if "temperature" not in names:
        config = config.model_copy(update={"temperature": 1.0})
    if tuning is None:
        return config
    values = config.tuning.model_dump() if config.tuning else {}
    return config.model_copy(
        update={"tuning": TuningConfig.model_validate({**values, **tomli.loads("\n".join(tuning))})}
    )


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
    parser.add_argument(
        "--tuning", nargs="*", metavar="KEY=VALUE", help="tune the transformer, with changes of [tuning]"
    )
    parser.add_argument("--keep", type=Path, help="a file for what was answered rightly")
    parser.add_argument(
        "--against", type=Path, help="such a file of another configuration and the same splits"
    )
    options = parser.parse_args()
    config = changed(options.config, options.set, options.source, options.tuning)
    quiet = Progress(log=io.StringIO())
    lookup = Lookup(options.data, options.data)
    sources = read_and_clean(config, lookup, read_lists(config, lookup), {}, quiet)
    with ProcessPoolExecutor(options.at_once, mp_context=get_context("spawn")) as pool:
        running = [
            pool.submit(trial, config, cut(sources, seed, config.seed), options.cache)
            for seed in options.splits
        ]
        figures = [one.result() for one in running]

    right = {
        rank: {name: np.hstack([one.right[rank][name] for one in figures]) for name in CODED}
        for rank in RANKS
    }
    shares = "; ".join(
        f"{name} "
        + ", ".join(
            " / ".join(f"{100 * right[rank][name][level].mean():.1f}" for rank in RANKS)
            for level in range(len(REFUSED) + 1)
        )
        for name in CODED
    )
    biases = ", ".join(f"{one.biases[0]:+.2f}" for one in figures)
    entropies = zip(TEMPERATURES, mean(one.cross_entropy for one in figures), strict=True)
    print(
        f"{shown(options) or options.config}: the first / one of the first "
        f"{RANKS[-1]} right, at {REFUSED} of vague terms refused and at nothing refused: {shares}; biases at "
        f"{REFUSED[0]}: {biases}; cross-entropy by temperature "
        f"{', '.join(f'{temperature}: {value:.3f}' for temperature, value in entropies)}; "
        f"splits {options.splits}; {machine()}"
    )
    kept = {f"{rank} {name}": right[rank][name] for rank in RANKS for name in CODED}
    if options.keep:
        np.savez_compressed(options.keep, allow_pickle=False, **kept)
    if options.against:
        with np.load(options.against) as other:
            for rank in RANKS:
                of_rank = {name: f"{rank} {name}" for name in CODED}
                compared = differences(
                    {name: kept[key][0] for name, key in of_rank.items()},
                    {name: other[key][0] for name, key in of_rank.items()},
                )
                print(
                    f"difference in the first {rank} from {options.against}: {'; '.join(map(str, compared))}"
                )


if __name__ == "__main__":
    main()
