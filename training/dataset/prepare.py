"""Reads and cleans all sources of a configuration, and checks that their rows can be used."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from training.cleaning.pipelines import CleaningLists, read_lists
from training.config import DEFAULT_SOURCES, SearchConfig, SourceConfig
from training.dataset.merge import CleanedSource, Dataset, clean_sources, merge
from training.dataset.quality import Summary, summary_of, warning_of, warnings_of_files, why_unusable
from training.dataset.report import Problem
from training.errors import FailureCode, TrainingError
from training.inputs.reported import Fact, Input
from training.lookup import Lookup, passed_over_in
from training.progress import Progress
from training.sources.read import files_of, read_source
from training.sources.rows import read_lines
from training.sources.snapshot import Snapshot, take_snapshot

# Sources that existing tools always use, without a key in their configuration, and their usual file.
USUAL: Final = {"search_references": "reference_data/search_references.json", "commodities_report": None}

_LISTS: Final = (
    "vague_terms_regex_file",
    "phrases_to_remove_file",
    "exact_english_terms",
    "partial_english_terms",
    "partial_non_english_terms",
)


def with_usual_sources(config: SearchConfig, lookup: Lookup, progress: Progress) -> SearchConfig:
    """The configuration with the usual sources that it does not name but whose usual file exists."""
    missing = set(_not_named(config))
    found = []
    for source in DEFAULT_SOURCES:
        file = USUAL.get(source.name)
        if source.name in missing and file is not None and lookup.has(file):
            progress.say(f"{source.name}: {file} is used, because it exists and is usually used")
            found.append(source.model_copy(update={"file": file}))
    ranks = {source.name: rank for rank, source in enumerate(DEFAULT_SOURCES)}
    sources = sorted((*config.sources, *found), key=lambda source: ranks.get(source.name, len(ranks)))
    return config.model_copy(update={"sources": tuple(sources)})


def usual_warnings(config: SearchConfig) -> list[str]:
    return [
        f"source {name} is not used, although existing tools always train with it. Set {name}_file or "
        f'{name}_url, or add "{name}" to unused_sources if this is right.'
        for name in _not_named(config)
    ]


def _not_named(config: SearchConfig) -> list[str]:
    named = {source.name for source in config.sources} | set(config.unused_sources)
    return [name for name in USUAL if name not in named]


def folder_warning(source: SourceConfig, lookup: Lookup) -> str | None:
    """What to do about files in the folder of a source that are not read."""
    if source.folder is None:
        return None
    passed_over = passed_over_in(lookup.find(source.folder, what=f"source {source.name}"))
    return passed_over and f"source {source.name}: {passed_over}"


def list_warnings(config: SearchConfig, lookup: Lookup) -> dict[str, str]:
    """What to do about lists that the configuration names and that are empty, by their keys."""
    named = {key: name for key in _LISTS if (name := getattr(config, key)) is not None}
    return {
        key: f"{key}: {name} is empty and has no effect. Add its lines, or remove the key."
        for key, name in named.items()
        if not read_lines(lookup.find_file(name, what=key))
    }


def take_snapshots(
    config: SearchConfig, given: Path | None, target: Path, progress: Progress
) -> dict[str, Snapshot]:
    """Snapshots of the additional sources, which have a URL and no file or folder."""
    return {
        source.name: take_snapshot(source, given, target, progress)
        for source in config.sources
        if source.file is None and source.folder is None
    }


def snapshot_inputs(snapshots: Mapping[str, Snapshot], summaries: Sequence[Summary]) -> Iterator[Input]:
    """The snapshots as `result.json` reports them, with the rows that were read of each."""
    rows = {summary.source: summary.rows for summary in summaries}
    for one in snapshots.values():
        details: dict[str, Fact] = {"rows": rows[one.source]}
        if one.fetched_at is not None:
            details["fetched_at"] = one.fetched_at
        file = f"snapshots/{one.path.name}"
        yield Input("additional_source", one.source, one.sha256, one.url, file, details=details)


def read_and_clean(
    config: SearchConfig,
    lookup: Lookup,
    lists: CleaningLists,
    snapshots: Mapping[str, Snapshot],
    progress: Progress,
) -> list[CleanedSource]:
    # All files are looked up before the first one is read, so that a missing file is reported at once.
    files = {
        source.name: [snapshots[source.name].path] if source.name in snapshots else files_of(source, lookup)
        for source in config.sources
    }
    cleaned = []
    with progress.phase("clean", len(config.sources)) as phase:
        rows = [read_source(source, files[source.name], config.rows_per_source) for source in config.sources]
        for one in clean_sources(rows, config.digits, lists):
            cleaned.append(one)
            for file, broken in one.read.broken[:5]:
                progress.say(f"{one.source.name}: left out {file}, line {broken.line}: {broken.why}")
            # The other sources say which codes exist. Here only what is never usable ends the run.
            if why := why_unusable(one, summary_of(one)):
                progress.say(str(summary_of(one)))
                raise TrainingError(FailureCode.UNREADABLE_SOURCE, why)
            phase.advance()
    return cleaned


def check_usable(
    config: SearchConfig,
    sources: list[CleanedSource],
    classes: set[str],
    progress: Progress,
    noticed: Sequence[str] = (),
) -> tuple[list[Summary], list[str]]:
    """Log what happened to the rows of each source, and warn about sources that are mostly unusable.

    `noticed` are further warnings. Raises `unreadable_source` for a source without a usable row. A trial with
    few rows of each source may miss the classes of some sources, so unknown codes do not end it.
    """
    summaries = [summary_of(one, classes) for one in sources]
    for one, summary in zip(sources, summaries, strict=True):
        progress.say(str(summary))
        is_trial = config.rows_per_source is not None and summary.unknown > 0
        if (why := why_unusable(one, summary)) and not is_trial:
            raise TrainingError(FailureCode.UNREADABLE_SOURCE, why)
    warnings = [*usual_warnings(config), *noticed]
    for one, summary in zip(sources, summaries, strict=True):
        warnings += _warnings(one, summary, classes, config)
    for text in warnings:
        progress.say(f"warning: {text}")
    return summaries, warnings


@dataclass
class Examined:
    """What could be read and cleaned, and everything that would end or trouble a training."""

    sources: list[CleanedSource] = field(default_factory=list)
    dataset: Dataset | None = None
    problems: list[Problem] = field(default_factory=list)
    errors: list[TrainingError] = field(default_factory=list)


def examine(
    config: SearchConfig, lookup: Lookup, given: Path | None, target: Path, progress: Progress
) -> Examined:
    """Read and clean every source on its own, so that one that cannot be used does not hide the others."""
    found = Examined()
    config = with_usual_sources(config, lookup, progress)
    found.problems += [
        Problem(name, "warning", text)
        for name, text in zip(_not_named(config), usual_warnings(config), strict=True)
    ]

    def refused(source: str, error: TrainingError) -> None:
        found.problems.append(Problem(source, "refused", error.message))
        found.errors.append(error)

    found.problems += [Problem(key, "warning", text) for key, text in list_warnings(config, lookup).items()]
    rows = []
    lists = read_lists(config, lookup)
    for source in config.sources:
        try:
            files = (
                [take_snapshot(source, given, target, progress).path]
                if source.url is not None
                else files_of(source, lookup)
            )
            if warning := folder_warning(source, lookup):
                found.problems.append(Problem(source.name, "warning", warning))
            rows.append(read_source(source, files, config.rows_per_source))
        except TrainingError as exc:
            refused(source.name, exc)
    found.sources = list(clean_sources(rows, config.digits, lists))
    try:
        found.dataset = merge(found.sources, config.seed)
    except TrainingError as exc:
        refused("all sources", exc)
    classes = None if found.dataset is None else set(found.dataset.classes)
    for one in found.sources:
        summary = summary_of(one, classes)
        progress.say(str(summary))
        if why := why_unusable(one, summary):
            refused(one.source.name, TrainingError(FailureCode.UNREADABLE_SOURCE, why))
        else:
            found.problems += [
                Problem(one.source.name, "warning", text) for text in _warnings(one, summary, classes, config)
            ]
    return found


def _warnings(
    one: CleanedSource, summary: Summary, classes: set[str] | None, config: SearchConfig
) -> Iterator[str]:
    if warning := warning_of(summary, config.minimum_usable_share):
        yield warning
    yield from warnings_of_files(one, classes)
