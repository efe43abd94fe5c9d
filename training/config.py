"""The schema of `search-config.toml`.

The API checks what CI posts with this module, so it needs only tomli, pydantic and the standard library.
A configuration that cannot be used raises `ConfigError`, which names each problem with its key and line.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

import tomli
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.config_checks.lines import lines_of_keys
from training.config_checks.problems import ConfigError, ConfigProblem, problems_of, shown

__all__ = [
    "DEFAULT_SOURCES",
    "SEMANTIC_VERSION",
    "VAGUE_CODE",
    "CleaningStep",
    "ConfigError",
    "ConfigProblem",
    "Figure",
    "Language",
    "SearchConfig",
    "SourceConfig",
    "parse_config",
]

VAGUE_CODE: Final = "vvvvvvvvvv"
"""The class of descriptions that are too vague to classify."""

SEMANTIC_VERSION: Final = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?",
    re.ASCII,
)

CleaningStep = Literal[
    "lower",
    "strip",
    "drop_empty",
    "drop_short",
    "code_shape",
    "code_changes",
    "drop_noise",
    "language",
    "incorrect_pairs",
    "plurals",
    "negation",
    "remove_phrases",
    "pad",
    # These two are names for several steps:
    "basic",
    "tradesets",
]
Figure = Literal["top_1", "top_2", "top_3", "top_4", "top_5", "no_result", "chapter", "heading", "subheading"]
Language = Literal[
    "ARABIC",
    "BULGARIAN",
    "CHINESE",
    "CZECH",
    "DANISH",
    "DUTCH",
    "ENGLISH",
    "ESTONIAN",
    "FINNISH",
    "FRENCH",
    "GERMAN",
    "GREEK",
    "HUNGARIAN",
    "IRISH",
    "ITALIAN",
    "JAPANESE",
    "KOREAN",
    "LATVIAN",
    "LITHUANIAN",
    "POLISH",
    "PORTUGUESE",
    "ROMANIAN",
    "SLOVAK",
    "SLOVENE",
    "SPANISH",
    "SWEDISH",
    "TURKISH",
    "UKRAINIAN",
    "WELSH",
]
Share = Annotated[float, Field(ge=0, le=1)]
# Arrays of TOML become tuples. All other types are strict, so that "5" is not accepted as a number.
Names = Annotated[tuple[str, ...], Field(strict=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class SourceConfig(_Section):
    """A source of descriptions with codes: its place, how it is cleaned, and how much it counts.

    One of `file`, `folder` (every `*.csv` in it) and `url` gives the place. Columns are counted from 0. If
    there is no `code_column`, every description gets `code`.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    kind: Literal["csv", "search_references", "commodities_report"] = "csv"
    file: str | None = None
    folder: str | None = None
    url: str | None = None
    encoding: Literal["utf-8", "latin-1", "cp1252"] = "utf-8"
    header: Literal["auto", "yes", "no"] = "auto"
    code_column: Annotated[int, Field(ge=0)] | None = None
    description_column: Annotated[int, Field(ge=0)] = 0
    code: str | None = None
    cleaning: Annotated[tuple[CleaningStep, ...], Field(strict=False)] = ("lower", "strip")
    weight: Annotated[float, Field(gt=0, le=1000)] = 1
    # The number of shorter forms of each description, with words left out, that are learned beside it.
    variants: Annotated[int, Field(ge=0, le=100)] = 0
    authoritative: bool = False
    creates_codes: bool = False
    enabled: bool = True

    @model_validator(mode="after")
    def _code_is_known(self) -> "SourceConfig":
        if self.kind == "csv" and self.code_column is None and self.code is None:
            raise ValueError("has no codes. Set code_column, or set code to one code for every description.")
        return self

    @property
    def place(self) -> str | None:
        return self.file or self.folder or self.url


DEFAULT_SOURCES: Final = (
    SourceConfig(
        name="vague_terms",
        code=VAGUE_CODE,
        description_column=0,
        cleaning=("lower", "strip"),
        weight=1,
        authoritative=True,
        creates_codes=True,
    ),
    SourceConfig(
        name="extra_references",
        code_column=1,
        description_column=0,
        cleaning=("lower", "strip"),
        weight=5,
        variants=8,
        authoritative=True,
    ),
    SourceConfig(
        name="cn_self_texts",
        code_column=1,
        description_column=2,
        cleaning=("basic", "negation"),
        weight=3,
        authoritative=True,
        creates_codes=True,
    ),
    SourceConfig(
        name="search_references",
        kind="search_references",
        cleaning=("lower", "strip"),
        weight=10,
        authoritative=True,
    ),
    SourceConfig(
        name="commodities_report",
        kind="commodities_report",
        cleaning=("basic", "negation"),
    ),
    SourceConfig(
        name="brands",
        code_column=0,
        description_column=1,
        cleaning=("pad", "basic"),
        weight=5,
        variants=8,
        authoritative=True,
    ),
    SourceConfig(
        name="tradesets",
        encoding="latin-1",
        code_column=0,
        description_column=1,
        cleaning=("tradesets",),
    ),
)

# The top-level keys that give the places of default sources.
_PLACES: Final[Mapping[str, tuple[str, Literal["file", "folder", "url"]]]] = {
    "vague_terms_data_file": ("vague_terms", "file"),
    "extra_data_file": ("extra_references", "file"),
    "cn_data_file": ("cn_self_texts", "file"),
    "search_references_file": ("search_references", "file"),
    "search_references_url": ("search_references", "url"),
    "commodities_report_file": ("commodities_report", "file"),
    "commodities_report_url": ("commodities_report", "url"),
    "brands_file": ("brands", "file"),
    "tradesets_data_dir": ("tradesets", "folder"),
}


class SearchConfig(_Section):
    """The content of a `search-config.toml`.

    `sources` are the sources in use. Earlier ones take precedence over later ones.
    """

    name: Annotated[str, Field(min_length=1)]
    version: str
    digits: Literal[6, 8] = 6
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    # Data.
    vague_terms_data_file: str | None = None
    vague_terms_regex_file: str | None = None
    extra_data_file: str | None = None
    cn_data_file: str | None = None
    search_references_file: str | None = None
    search_references_url: str | None = None
    commodities_report_file: str | None = None
    commodities_report_url: str | None = None
    brands_file: str | None = None
    tradesets_data_dir: str | None = None
    sources: tuple[SourceConfig, ...] = ()
    # For tests and trials: only this many rows of each source are used, from its start.
    rows_per_source: Annotated[int, Field(ge=1)] | None = None

    # Cleaning.
    exact_english_terms: str | None = None
    partial_english_terms: str | None = None
    partial_non_english_terms: str | None = None
    incorrect_description_pairs_file: str | None = None
    phrases_to_remove_file: str | None = None
    preferred_languages: Annotated[tuple[Language, ...], Field(strict=False, min_length=1)] = ("ENGLISH",)
    detected_languages: Annotated[tuple[Language, ...], Field(strict=False, min_length=2)] = (
        "ENGLISH",
        "FRENCH",
        "GERMAN",
        "SPANISH",
    )
    minimum_relative_distance: Annotated[float, Field(ge=0, lt=1)] = 0.7

    # Embeddings.
    transformer: Annotated[str, Field(min_length=1)] = "all-MiniLM-L6-v2"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    # auto uses bfloat16 if the hardware multiplies it faster. Weights and sums are float32 either way.
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    # The number of processes that share the work, one for each GPU. `torchrun` starts them.
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    embedding_batch_size: Annotated[int, Field(ge=1, le=65536)] = 64
    uses_quantized_model: Literal[False] = False

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

    # Classification.
    classification_limit: Annotated[int, Field(ge=1, le=100)] = 5
    classification_best_share: Annotated[float, Field(gt=0, le=1)] = 0.05
    classification_minimum_score: Share = 0.01
    classification_minimum_of_best: Share = 0.05
    classification_cumulated_score: Annotated[float, Field(gt=0, le=1)] = 0.9

    # Benchmark. `[benchmark_floors."*"]` applies to every benchmark, `[benchmark_floors.vague]` to one.
    benchmark_floors: dict[str, dict[Figure, Share]] = {}

    @model_validator(mode="after")
    def _members_are_alike(self) -> "SearchConfig":
        if self.hidden_size % self.ensemble_size:
            raise ValueError(
                f"hidden_size {self.hidden_size} cannot be split evenly into {self.ensemble_size} networks "
                "(ensemble_size). Make it a multiple."
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
    """Read a `search-config.toml`. Raises `ConfigError` with all of its problems."""
    try:
        raw = tomli.loads(text)
    except tomli.TOMLDecodeError as exc:
        message = f"is not valid TOML: {exc.msg} (line {exc.lineno}, column {exc.colno})"
        raise ConfigError((ConfigProblem("", exc.lineno, message),)) from exc
    lines = lines_of_keys(text)
    problems: list[ConfigProblem] = []

    tables = raw.pop("sources", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problems.append(
            ConfigProblem(
                "sources",
                lines.get("sources"),
                "must be an array of tables. Write each source as a [[sources]] table.",
            )
        )
        tables = []
    problems += _version_problems(raw, lines)
    try:
        flat = SearchConfig.model_validate(raw)
    except ValidationError as exc:
        flat = None
        # A wrong version has been reported already, with a better message.
        problems += [found for found in problems_of(exc, SearchConfig, "", lines) if found.key != "version"]
    sources = list(_sources(raw, tables, lines, problems))
    if problems or flat is None:
        problems.sort(key=lambda problem: (problem.line or 0, problem.key))
        raise ConfigError(tuple(problems))
    return flat.model_copy(update={"sources": tuple(sources)})


def _version_problems(raw: Mapping[str, Any], lines: Mapping[str, int]) -> Iterator[ConfigProblem]:
    """The version is part of the name of the model, so it is checked first and has its own messages."""
    if "version" not in raw:
        yield ConfigProblem("version", None, 'is missing. Add a line such as version = "1.0.0".')
        return
    version = raw["version"]
    if not isinstance(version, str) or not SEMANTIC_VERSION.fullmatch(version):
        yield ConfigProblem(
            "version",
            lines.get("version"),
            f"is {shown(version)}, which is not a semantic version. Write MAJOR.MINOR.PATCH, such as 0.0.2, "
            "or a pre-release such as 1.4.0-rc.1.",
        )


def _sources(
    raw: Mapping[str, Any],
    tables: list[dict[str, Any]],
    lines: Mapping[str, int],
    problems: list[ConfigProblem],
) -> Iterator[SourceConfig]:
    """The default sources that have a place, changed by the tables with their names, then other sources."""
    places: dict[str, dict[str, str]] = {}
    for key, (source_name, field) in _PLACES.items():
        if isinstance(raw.get(key), str):
            places.setdefault(source_name, {})[field] = raw[key]
    given: dict[str, SourceConfig] = {}
    for index, table in enumerate(tables):
        prefix = f"sources[{index}]"
        try:
            source = SourceConfig.model_validate(_base(table, places) | table)
        except ValidationError as exc:
            problems += problems_of(exc, SourceConfig, prefix, lines)
            continue
        line = lines.get(f"{prefix}.name", lines.get(prefix))
        if source.name in given:
            problems.append(
                ConfigProblem(
                    f"{prefix}.name",
                    line,
                    f"{source.name!r} is the name of an earlier source too. Give each source its own name.",
                )
            )
        if source.place is None and source.enabled:
            problems.append(ConfigProblem(prefix, line, "has no place. Set one of file, folder and url."))
        given[source.name] = source
    for default in DEFAULT_SOURCES:
        if default.name not in given and default.name in places:
            given[default.name] = default.model_copy(update=places[default.name])
    ranks = {source.name: rank for rank, source in enumerate(DEFAULT_SOURCES)}
    for source in sorted(given.values(), key=lambda source: ranks.get(source.name, len(ranks))):
        if source.enabled:
            yield source


def _base(table: Mapping[str, Any], places: Mapping[str, dict[str, str]]) -> dict[str, Any]:
    """The values that a table changes: those of the default source with its name, unless it has a place."""
    default = next((source for source in DEFAULT_SOURCES if source.name == table.get("name")), None)
    if default is None:
        return {}
    base = default.model_dump(exclude_none=True)
    return base if {"file", "folder", "url"} & table.keys() else base | places.get(default.name, {})
