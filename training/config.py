"""The schema of `search-config.toml`.

The API checks what CI posts with this module, so it needs only tomli, pydantic and the standard library.
A configuration that cannot be used raises `ConfigError`, which names each problem with its key and line.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

import tomli
from pydantic import AfterValidator, Field, ValidationError, model_validator

from training.config_parts.differences import Difference, differences_of
from training.config_parts.lines import Path
from training.config_parts.problems import (
    ConfigError,
    ConfigProblem,
    Finding,
    error_of,
    findings_of,
    shown,
    unknown_keys,
)
from training.config_parts.section import Section
from training.config_parts.sources import (
    DEFAULT_SOURCES,
    SourceConfig,
    source_tables,
    sources_of,
    written_sources,
)
from training.config_parts.tuning import TuningConfig
from training.config_parts.values import (
    Device,
    FilePath,
    FolderPath,
    Name,
    OptionalFilePath,
    SourceName,
    TransformerName,
    Url,
    at_most,
)
from training.config_parts.warnings import warnings_of
from training.config_parts.words import (
    VAGUE_CODE,
    CleaningStep,
    Figure,
    Language,
    PatternsMatch,
    name_in_existing_tools,
)
from training.config_parts.writing import toml_document

__all__ = [
    "DEFAULT_SOURCES",
    "SEMANTIC_VERSION",
    "VAGUE_CODE",
    "CleaningStep",
    "ConfigError",
    "ConfigProblem",
    "Difference",
    "Figure",
    "Finding",
    "Language",
    "PatternsMatch",
    "SearchConfig",
    "SourceConfig",
    "TuningConfig",
    "differences",
    "error_of",
    "every_value",
    "findings_of",
    "name_in_existing_tools",
    "parse_config",
    "parse_toml",
    "shown",
    "toml_document",
    "unknown_keys",
    "warnings_of",
]

SEMANTIC_VERSION: Final = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?",
    re.ASCII,
)

# The API says what is too long for a prefix. This only bounds the time of the pattern.
LONGEST_VERSION: Final = 10_000


def _never_quantized(value: bool) -> bool:  # noqa: FBT001 - pydantic passes it so
    if value:
        raise ValueError(
            "is true, but models are not quantised here. Write false. To halve the size of a model, set "
            'weights_precision = "float16".'
        )
    return value


Share = Annotated[float, Field(ge=0, le=1)]
Floors = Annotated[dict[Figure, Share], at_most(20)]
# Arrays of TOML become tuples. All other types are strict, so that "5" is not accepted as a number.


class SearchConfig(Section):
    """The content of a `search-config.toml`.

    `sources` are the sources in use. Earlier ones take precedence over later ones.
    """

    name: Name
    version: str
    digits: Literal[6, 8] = 6
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    # Data.
    vague_terms_data_file: FilePath | None = None
    vague_terms_regex_file: OptionalFilePath = None
    # Where a pattern of vague terms must match. The deployed service matches them at the start.
    vague_patterns_match: PatternsMatch = "start"
    extra_data_file: FilePath | None = None
    # Other names of extra_data_file and brands_file, which existing tools read.
    extra_references_data_file: FilePath | None = None
    brands_data_file: FilePath | None = None
    cn_data_file: FilePath | None = None
    search_references_file: FilePath | None = None
    search_references_url: Url | None = None
    commodities_report_file: FilePath | None = None
    commodities_report_url: Url | None = None
    brands_file: FilePath | None = None
    tradesets_data_dir: FolderPath | None = None
    sources: tuple[SourceConfig, ...] = ()
    # Usual sources that are left out on purpose, also where their usual file exists. No warning is given.
    unused_sources: Annotated[tuple[SourceName, ...], Field(strict=False), at_most(100)] = ()
    # For tests and trials: only this many rows of each source are used, from its start.
    rows_per_source: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    # A run warns about a source of which a smaller share of the rows can be used.
    minimum_usable_share: Share = 0.5

    # Cleaning.
    exact_english_terms: FilePath | None = None
    partial_english_terms: FilePath | None = None
    partial_non_english_terms: FilePath | None = None
    incorrect_description_pairs_file: FilePath | None = None
    phrases_to_remove_file: FilePath | None = None
    preferred_languages: Annotated[tuple[Language, ...], Field(strict=False, min_length=1), at_most(50)] = (
        "ENGLISH",
    )
    detected_languages: Annotated[tuple[Language, ...], Field(strict=False, min_length=2), at_most(50)] = (
        "ENGLISH",
        "FRENCH",
        "GERMAN",
        "SPANISH",
    )
    minimum_relative_distance: Annotated[float, Field(ge=0, lt=1)] = 0.7

    # Embeddings.
    transformer: TransformerName = "all-MiniLM-L6-v2"
    device: Device = "auto"
    # auto uses bfloat16 if the hardware multiplies it faster. Weights and sums are float32 either way.
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    # The number of processes that share the work, one for each GPU. `torchrun` starts them.
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    embedding_batch_size: Annotated[int, Field(ge=1, le=65536)] = 64
    uses_quantized_model: Annotated[bool, AfterValidator(_never_quantized)] = False

    # Whether and how the transformer itself is trained on the pairs first.
    tuning: TuningConfig | None = None

    # Network.
    hidden_size: Annotated[int, Field(ge=1, le=65536)] = 1024
    # The number of networks that are trained, each with an equal share of the hidden size, and then combined
    # into one network that computes the mean of their logits.
    ensemble_size: Annotated[int, Field(ge=1, le=64)] = 1
    # How the weights are stored. float16 halves the size of the model, and loads into the same network.
    weights_precision: Literal["float32", "float16"] = "float32"
    model_dropout_layer_1_percentage: Annotated[float, Field(ge=0, lt=1)] = 0.1
    model_dropout_layer_2_percentage: Annotated[float, Field(ge=0, lt=1)] = 0.4
    embedding_scale: Annotated[float, Field(gt=0, le=1000)] = 10.0
    # With 1, embeddings vary equally in all directions; with 0 they are unchanged; 0.5 is half-way.
    embedding_whitening: Share = 0.5
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.001
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.05
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # The weight in the loss of the probabilities of the chapter and the heading, beside that of the code.
    hierarchy_weight: Annotated[float, Field(ge=0, le=10)] = 0.3
    # The share of epochs in which a description that has variants is replaced by one of them.
    variant_share: Share = 0.5
    # Added to the logit of the vague class. Below 0, fewer descriptions are refused and more are answered.
    vague_bias: Annotated[float, Field(ge=-20, le=20)] = 0.0
    # Divides the logits. Above 1, scores are less certain and lists of results longer; their order stays.
    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0
    warm_up_share: Share = 0.05
    max_epochs: Annotated[int, Field(ge=1, le=10000)] = 8
    model_batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    # How often a run that is given a folder for checkpoints writes one.
    checkpoint_minutes: Annotated[float, Field(gt=0, le=1440)] = 5.0

    # Classification.
    classification_limit: Annotated[int, Field(ge=1, le=100)] = 5
    classification_best_share: Annotated[float, Field(gt=0, le=1)] = 0.05
    classification_minimum_score: Share = 0.01
    classification_minimum_of_best: Share = 0.05
    classification_cumulated_score: Annotated[float, Field(gt=0, le=1)] = 0.9

    # Benchmark. `[benchmark_floors."*"]` applies to every benchmark, `[benchmark_floors.vague]` to one.
    benchmark_floors: Annotated[dict[Name, Floors], at_most(200)] = Field(default={})

    @model_validator(mode="after")
    def _several_languages_are_detected(self) -> "SearchConfig":
        if len(set(self.detected_languages)) < 2:
            raise ValueError(
                "detected_languages must have at least two different languages. Add another one."
            )
        return self

    @model_validator(mode="after")
    def _members_are_alike(self) -> "SearchConfig":
        if self.hidden_size % self.ensemble_size:
            raise ValueError(
                f"hidden_size {self.hidden_size} cannot be split evenly into {self.ensemble_size} networks "
                "(ensemble_size). Make it a multiple."
            )
        return self

    @model_validator(mode="after")
    def _networks_take_turns(self) -> "SearchConfig":
        if self.tuning is None:
            return self
        if self.ensemble_size % len(self.tuning.networks):
            raise ValueError(
                f"ensemble_size is {self.ensemble_size}, but tuning.networks has {len(self.tuning.networks)} "
                "entries that the networks take in turn. Make ensemble_size a multiple of that."
            )
        if not self.tuning.uses_tuned:
            raise ValueError(
                "tuning.networks has only base, and tuning.head_share and tuning.neighbour_share are 0, so "
                "the tuned transformer would not be used. Change one of them, or remove [tuning]."
            )
        return self

    def floor(self, benchmark: str, figure: str) -> float:
        """The share that `figure` must reach in `benchmark`; 0 if there is no floor."""
        for name in (benchmark, "*"):
            for known, share in self.benchmark_floors.get(name, {}).items():
                if known == figure:
                    return share
        return 0.0


def parse_config(text: str) -> SearchConfig:
    """Read a `search-config.toml`. Raises `ConfigError` with all problems, or with the first of too many."""
    raw = parse_toml(text)
    findings: list[Finding] = []
    tables = source_tables(raw.pop("sources", []), findings)
    findings += _version_findings(raw)
    findings += unknown_keys(raw, SearchConfig, ())
    findings += _tuning_findings(raw)
    # Unknown keys are left out here, because pydantic would list all of them, however many there are.
    known = {key: value for key, value in raw.items() if key in SearchConfig.model_fields}
    try:
        flat = SearchConfig.model_validate(known)
    except ValidationError as exc:
        flat = None
        # A wrong version has been reported already, with a better message.
        findings += [found for found in findings_of(exc, ()) if found.path != ("version",)]
    sources = list(sources_of(known, tables, findings))
    if findings or flat is None:
        raise error_of(findings, text.removeprefix("\ufeff"))
    switched_off = {str(table["name"]) for table in tables if table.get("enabled") is False}
    unused = tuple(sorted({*flat.unused_sources, *switched_off}))
    return flat.model_copy(update={"sources": tuple(sources), "unused_sources": unused})


def _tuning_findings(raw: dict[str, Any]) -> Iterator[Finding]:
    """Findings about the table and its unknown keys, which are taken out of `raw`."""
    table = raw.get("tuning", {})
    if not isinstance(table, dict):
        del raw["tuning"]
        yield Finding(("tuning",), f"is {shown(table)}, but must be a table. Write [tuning] on its own line.")
        return
    yield from unknown_keys(table, TuningConfig, ("tuning",))
    for key in table.keys() - TuningConfig.model_fields.keys():
        del table[key]


def every_value(config: SearchConfig) -> dict[str, Any]:
    """The values of a configuration by their keys, also those that a posted text left to a default.

    A text with these values gives the same configuration. Existing tools have other defaults, so what they
    read must have every key.
    """
    values: dict[str, Any] = config.model_dump(exclude_none=True)
    values["vague_terms_regex_file"] = config.vague_terms_regex_file or ""
    values["sources"] = list(written_sources(values, config.sources))
    return values


def differences(there: str, sent: str) -> tuple[Difference, ...]:
    """The values that differ between two configurations, the first of them if there are very many.

    Layout, comments, order and line ends do not count, and neither does a default value that only one of the
    two writes out. Where one of the texts is not even TOML, the one difference is the whole file.
    """
    if there == sent:
        return ()
    try:
        try:
            values = parse_config(there).model_dump(), parse_config(sent).model_dump()
        except ConfigError:
            # One of them may be for another version of this code, which knows other keys: as written, then.
            values = parse_toml(there), parse_toml(sent)
        return differences_of(*values)
    except (ConfigError, RecursionError):
        return (Difference("search-config.toml", None, None),)


def parse_toml(text: str) -> dict[str, Any]:
    """The values of a text, whatever its keys are. Raises `ConfigError` if it is not TOML."""
    try:
        # Editors on Windows may write a byte order mark, which TOML allows and tomli does not.
        return tomli.loads(text.removeprefix("\ufeff"))
    except tomli.TOMLDecodeError as exc:
        message = f"is not valid TOML: {exc.msg} (line {exc.lineno}, column {exc.colno})"
        raise ConfigError((ConfigProblem("", exc.lineno, message),)) from exc
    except (ValueError, RecursionError) as exc:
        # tomli reads numbers of at most 4,300 digits, and limits how deeply keys and arrays are nested.
        message = (
            "cannot be read, because it has a number with thousands of digits, or is nested too deeply. "
            "Write it more simply."
        )
        raise ConfigError((ConfigProblem("", None, message),)) from exc


def _version_findings(raw: Mapping[str, Any]) -> Iterator[Finding]:
    """The version is part of the name of the model, so it is checked first and has its own messages."""
    path: Path = ("version",)
    if "version" not in raw:
        yield Finding(path, 'is missing. Add a line such as version = "1.0.0".')
        return
    version = raw["version"]
    is_short = isinstance(version, str) and len(version) <= LONGEST_VERSION
    if not is_short or not SEMANTIC_VERSION.fullmatch(version):
        yield Finding(
            path,
            f"is {shown(version)}, which is not a semantic version. Write MAJOR.MINOR.PATCH, such as 0.0.2, "
            "or a pre-release such as 1.4.0-rc.1.",
        )
