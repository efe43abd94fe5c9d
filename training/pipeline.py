"""The pipeline from its inputs to its files: training, benchmark and classification, in reading order."""

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.archives import unpack
from training.checkpoints import Checkpoints, identity_of_run
from training.cleaning.language import LanguageRules
from training.cleaning.pipelines import read_lists
from training.cleaning.text import normalised
from training.config import VAGUE_CODE, ConfigError, SearchConfig, every_value, parse_config
from training.dataset.merge import CleanedSource, Dataset, merge
from training.dataset.page import write_report
from training.dataset.prepare import (
    check_usable,
    examine,
    folder_warning,
    list_warnings,
    read_and_clean,
    snapshot_inputs,
    take_snapshots,
    with_usual_sources,
)
from training.dataset.quality import Summary
from training.dataset.report import report
from training.distributed import Group, is_leader, join
from training.embedding.encoder import Encoder
from training.embedding.transformer import Transformer, find_transformer
from training.errors import FailureCode, TrainingError
from training.evaluation.benchmark import make_benchmarks
from training.evaluation.classify import Result
from training.evaluation.deployed import deployed_cleaners
from training.evaluation.loading import load_classifier
from training.evaluation.measure import measure
from training.evaluation.report.write import write_training_report
from training.evaluation.results import write_results
from training.evaluation.tables import NO_TABLES, Tables, read_tables
from training.files import output_folder, sha256_of_file, temporary_folder
from training.inputs.determinism import determinism
from training.inputs.environment import python_environment
from training.inputs.hardware import hardware
from training.inputs.reference import reference_data
from training.inputs.reported import Input
from training.lookup import Lookup
from training.network.head import choose_bfloat16, choose_device
from training.network.package import Answers, Carried, write_model
from training.network.standing import Epoch
from training.network.train import fix_cublas_workspace, train_network
from training.progress import Progress
from training.sources.rows import read_lines
from training.sources.snapshot import Snapshot
from training.tuning.stage import Embedding


@dataclass(frozen=True)
class Overrides:
    """Options of the command line that take precedence over the configuration."""

    rows_per_source: int | None = None
    max_epochs: int | None = None
    device: str | None = None


@dataclass(frozen=True)
class Places:
    """Where a run finds embeddings and snapshots that earlier runs left, and data that it only checks."""

    embedding_cache: str | None = None
    snapshots: Path | None = None
    benchmarking_data: Path | None = None
    # Where a run that was ended before has left its checkpoints, and where this one keeps its own.
    checkpoints: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What `result.json` reports about a run that succeeded. A training also reports every value it used."""

    files: list[Path]
    inputs: list[Input]
    metrics: dict[str, float] | dict[str, dict[str, float]]
    counts: Mapping[str, int | dict[str, int]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    epochs: Sequence[Epoch] = ()
    # The epochs in which the transformer was tuned.
    tuning: Sequence[Epoch] = ()
    # What happened to the rows of each source, and what a person should look at.
    data: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_config(path: Path, overrides: Overrides) -> SearchConfig:
    """Raises `invalid_config` with one line for each problem."""
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as exc:
        raise TrainingError(
            FailureCode.INVALID_CONFIG, f"{path.name} is not UTF-8 text ({exc}). Save it as UTF-8."
        ) from exc
    except OSError as exc:
        raise TrainingError(FailureCode.INVALID_CONFIG, f"{path} cannot be read: {exc}") from exc
    try:
        config = parse_config(text)
    except ConfigError as exc:
        problems = "\n".join(map(str, exc.problems))
        raise TrainingError(FailureCode.INVALID_CONFIG, f"{path.name} cannot be used:\n{problems}") from exc
    changes = {
        "rows_per_source": overrides.rows_per_source,
        "max_epochs": overrides.max_epochs,
        "device": overrides.device,
    }
    return config.model_copy(update={key: value for key, value in changes.items() if value is not None})


def train(
    config: SearchConfig, raw_source_data: Path, output: Path, progress: Progress, places: Places
) -> Outcome:
    """Check all inputs, read and clean the data, embed it, train the network, and write `model.zip`.

    Under torchrun every process runs this function; only the leader reads the data and writes files.
    """
    # Before the embeddings, because they are the first to use the GPU, unless all of them are cached.
    fix_cublas_workspace()
    chosen = _device(config)
    group = join(chosen)
    checkpoints = _checkpoints(config, places.checkpoints, chosen, group, progress)
    if not is_leader():
        return _train(config, raw_source_data, output, progress, places, chosen, group, checkpoints)
    with output_folder(output), checkpoints.opened():
        outcome = _train(config, raw_source_data, output, progress, places, chosen, group, checkpoints)
        checkpoints.clear()
        return outcome


def _train(
    config: SearchConfig,
    raw_source_data: Path,
    output: Path,
    progress: Progress,
    places: Places,
    chosen: str,
    group: Group,
    checkpoints: Checkpoints,
) -> Outcome:
    devices = group.devices(chosen)
    device = devices[group.rank]
    transformer = find_transformer(config.transformer)
    benchmarks = NO_TABLES
    if group.leads and places.benchmarking_data is not None:
        # A benchmark that cannot be read is noticed now, and not when the model has been trained.
        benchmarks = read_benchmarking_data(places.benchmarking_data, output)
    data = group.share(
        prepare(config, raw_source_data, output, progress, places, benchmarks) if group.leads else None
    )
    dataset = data.dataset
    progress.say("data: " + ", ".join(f"{name} {count:,}" for name, count in dataset.counts.items()))

    bfloat16 = choose_bfloat16(config.precision, device)
    pool = devices if group.size > 1 else ()

    def encoder_of(one: Transformer) -> Encoder:
        return Encoder(one, device, config.embedding_batch_size, bfloat16=bfloat16, pool=pool)

    embedding = Embedding(dataset, transformer, encoder_of, places.embedding_cache, progress, group)
    model = output / "model.zip"
    with temporary_folder(output, "transformers") if group.leads else nullcontext(output) as folder:
        embedded = (
            embedding.with_original()
            if config.tuning is None
            else embedding.with_tuned(config, config.tuning, device, folder, checkpoints)
        )
        trained = train_network(
            dataset, embedded.table, config, device, progress, group, checkpoints, embedded.views
        )
        if group.leads:
            with progress.phase("package", 1) as phase:
                answers = _answers(config, data, transformer, embedded.transformers)
                write_model(model, trained, dataset.classes, answers, embedded.transformers, embedded.epochs)
                phase.advance()
    last = trained.epochs[-1]
    return Outcome(
        files=[model],
        inputs=[
            transformer.as_input(tuned=config.tuning is not None),
            hardware(),
            determinism(config.seed, device, bfloat16=bfloat16, processes=group.size),
            *data.references_used,
            *snapshot_inputs(data.snapshots, data.summaries),
            *([python_environment(output)] if group.leads else ()),
        ],
        metrics={"loss": round(last.loss, 6), "accuracy": round(last.accuracy, 6)},
        counts={**dataset.counts, "sources": dataset.rows_by_source},
        config=every_value(data.config),
        epochs=trained.epochs,
        tuning=embedded.epochs,
        data={summary.source: summary.to_json() for summary in data.summaries},
        warnings=data.warnings,
    )


@dataclass(frozen=True)
class Prepared:
    """The data of a run, after everything has been read."""

    # With the usual sources that the configuration does not name.
    config: SearchConfig
    dataset: Dataset
    vague_terms: frozenset[str]
    vague_patterns: tuple[str, ...]
    references: dict[str, str]
    language: LanguageRules
    snapshots: dict[str, Snapshot]
    # The files of the checkout that were read.
    references_used: list[Input]
    summaries: list[Summary]
    warnings: list[str]


def prepare(
    config: SearchConfig,
    raw_source_data: Path,
    output: Path,
    progress: Progress,
    places: Places,
    benchmarks: Tables = NO_TABLES,
) -> Prepared:
    """Unpack the raw data, take snapshots, read and clean the sources, merge them, and judge benchmarks."""
    with temporary_folder(output, "raw-source-data") as folder:
        unpacked = unpack(raw_source_data, folder, missing=FailureCode.MISSING_SOURCE)
        lookup = Lookup(unpacked, Path.cwd())
        config = with_usual_sources(config, lookup, progress)
        patterns = read_patterns(config, lookup)
        lists = read_lists(config, lookup)
        snapshots = take_snapshots(config, places.snapshots, output / "snapshots", progress)
        sources = read_and_clean(config, lookup, lists, snapshots, progress)
        rows = {f"source {one.source.name}": one.read.frame.height for one in sources}
        read = reference_data(lookup, rows)
        noticed = list(list_warnings(config, lookup).values())
        noticed += [text for source in config.sources if (text := folder_warning(source, lookup))]
    dataset = merge(sources, config.seed)
    classes = set(dataset.classes)
    summaries, warnings = check_usable(config, sources, classes, progress, noticed)
    # Judged by the classes and lists that the model will have, so the benchmark will find the same.
    _, found = make_benchmarks(
        benchmarks, config, dataset.classes, deployed_cleaners(lists.language), progress
    )
    warnings += found
    vague, references = _known_answers(sources, classes)
    return Prepared(
        config, dataset, vague, patterns, references, lists.language, snapshots, read, summaries, warnings
    )


def verify(
    config: SearchConfig, raw_source_data: Path, output: Path, progress: Progress, places: Places
) -> Outcome:
    """Train twice, the second time without a cache. Raises `crashed` if the models differ in any byte.

    With several processes only the leader compares, because only it has the files.
    """
    outcome = train(config, raw_source_data, output, progress, places)
    taken = output / "snapshots"
    with temporary_folder(output, "verify") as folder:
        again = Places(snapshots=taken if taken.is_dir() else places.snapshots)
        second = train(config, raw_source_data, folder, progress, again)
        if not is_leader():
            return outcome
        digests = [sha256_of_file(path) for path in (*outcome.files, *second.files)]
    if len(set(digests)) > 1:
        raise TrainingError(
            FailureCode.CRASHED,
            f"training twice on the same inputs gave two different models ({' and '.join(digests)}). "
            "Models cannot be reproduced on this machine.",
        )
    progress.say(f"verified: both trainings gave the same model.zip, sha256 {digests[0]}")
    return outcome


def benchmark(
    config: SearchConfig,
    model: Path,
    benchmarking_data: Path,
    output: Path,
    progress: Progress,
    limit: int | None,
) -> Outcome:
    """Measure every benchmark of the zip; write the results as XML, as JSON, and as a page to look at."""
    classifier = load_classifier(config, model)
    with output_folder(output):
        benchmarks, warnings = make_benchmarks(
            read_benchmarking_data(benchmarking_data, output),
            config,
            classifier.model.classes,
            classifier.cleaners,
            progress,
            limit,
        )
        measured = []
        with progress.phase("benchmark", sum(len(one.descriptions) for one in benchmarks)) as phase:
            for one in benchmarks:
                measured.append(measure(one, classifier, progress))
                phase.advance(len(one.descriptions))
                figures = ", ".join(f"{name} {share:.1%}" for name, share in measured[-1].figures.items())
                progress.say(f"{one.name} ({len(one.descriptions)}): {figures}")
        epochs, tuning = classifier.model.epochs, classifier.model.tuning
        results = write_results(output, measured, config, epochs)
        report, noticed = write_training_report(output, measured, config, epochs, tuning, progress)
        return Outcome(
            files=[*results, *report],
            inputs=[python_environment(output)],
            metrics={one.benchmark.name: one.metrics for one in measured},
            counts={one.benchmark.name: len(one.results) for one in measured},
            data={one.name: one.to_json() for one in benchmarks},
            warnings=[*warnings, *noticed],
        )


def read_benchmarking_data(benchmarking_data: Path, output: Path) -> Tables:
    """Unpack and read all benchmarks. Raises `missing_benchmark` or `unreadable_source`."""
    with temporary_folder(output, "benchmarking-data") as folder:
        return read_tables(unpack(benchmarking_data, folder, missing=FailureCode.MISSING_BENCHMARK))


def clean_report(
    config: SearchConfig, raw_source_data: Path, output: Path, progress: Progress, places: Places
) -> list[Path]:
    """Report what cleaning does to each source: `cleaning_report.csv` and `cleaning_report.html`."""
    with output_folder(output):
        with temporary_folder(output, "raw-source-data") as folder:
            unpacked = unpack(raw_source_data, folder, missing=FailureCode.MISSING_SOURCE)
            examined = examine(
                config, Lookup(unpacked, Path.cwd()), places.snapshots, output / "snapshots", progress
            )
        lines = report(examined.sources, examined.dataset, examined.problems)
        title = f"Cleaning report of {config.name} {config.version}, {config.digits} digits"
        paths = write_report(output, lines, title)
        for problem in examined.problems:
            progress.say(f"{problem.outcome}: {problem.message}")
        if examined.errors:
            progress.say(f"the training would fail; see {', '.join(map(str, paths))}")
            raise examined.errors[0]
        return paths


def classify(config: SearchConfig, model: Path, descriptions: list[str]) -> list[list[Result]]:
    classifier = load_classifier(config, model)
    return [classifier.classify(description) for description in descriptions]


def read_patterns(config: SearchConfig, lookup: Lookup) -> tuple[str, ...]:
    """The patterns of vague descriptions. Lines that start with # are comments."""
    if config.vague_terms_regex_file is None:
        return ()
    path = lookup.find_file(config.vague_terms_regex_file, what="vague_terms_regex_file")
    patterns = tuple(line for line in read_lines(path) if not line.startswith("#"))
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as exc:
            raise TrainingError(
                FailureCode.UNREADABLE_SOURCE,
                f"{path.name}: {pattern!r} is not a valid regular expression ({exc}). "
                "Correct or remove this line.",
            ) from exc
    return patterns


def _known_answers(sources: list[CleanedSource], classes: set[str]) -> tuple[frozenset[str], dict[str, str]]:
    """The vague terms, and those search references whose codes are classes."""
    vague: set[str] = set()
    references: dict[str, str] = {}
    for source in sources:
        pairs = source.cleaned.kept.select("description", "code").unique().sort("description", "code")
        if source.source.code == VAGUE_CODE:
            vague |= {normalised(description) for description, _ in pairs.iter_rows()}
        elif source.source.kind == "search_references":
            for description, code in pairs.iter_rows():
                if code in classes:
                    references.setdefault(normalised(description), code)
    return frozenset(vague), references


def _answers(
    config: SearchConfig, data: Prepared, transformer: Transformer, carried: Mapping[str, Transformer]
) -> Answers:
    return Answers(
        transformer.name,
        transformer.sha256,
        config.digits,
        data.vague_terms,
        data.vague_patterns,
        data.references,
        data.language,
        tuple(Carried(folder, one.sha256) for folder, one in carried.items()),
    )


def describe_files(files: list[Path]) -> dict[str, dict[str, str | int]]:
    return {path.name: {"sha256": sha256_of_file(path), "size_bytes": path.stat().st_size} for path in files}


def _checkpoints(
    config: SearchConfig, folder: Path | None, device: str, group: Group, progress: Progress
) -> Checkpoints:
    """The run's checkpoints. Only the leader keeps any."""
    values = config.model_dump(exclude={"checkpoint_minutes"})
    return Checkpoints(
        folder if group.leads else None,
        60 * config.checkpoint_minutes,
        identity_of_run(values, device, group),
        progress.say,
    )


def _device(config: SearchConfig) -> str:
    try:
        return choose_device(config.device)
    except ValueError as exc:
        raise TrainingError(FailureCode.INVALID_CONFIG, str(exc)) from exc
