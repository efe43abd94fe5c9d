"""The sources of a configuration: their schema, the default sources, and how both are combined."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from training.config_parts.lines import Path
from training.config_parts.problems import Finding, findings_of, unknown_keys
from training.config_parts.section import Section
from training.config_parts.values import FilePath, FolderPath, Name, SourceName, Url, at_most
from training.config_parts.words import VAGUE_CODE, CleaningStep

MOST_SOURCES: Final = 100


class SourceConfig(Section):
    """A source of descriptions with codes: its place, how it is cleaned, and how much it counts.

    One of `file`, `folder` (every `*.csv` in it) and `url` gives the place. Columns are counted from 0. If
    there is no `code_column`, every description gets `code`.
    """

    name: SourceName
    kind: Literal["csv", "search_references", "commodities_report"] = "csv"
    file: FilePath | None = None
    folder: FolderPath | None = None
    url: Url | None = None
    # The placeholders of a date in the URL stand for this many days before today, in UTC.
    url_days_ago: Annotated[int, Field(ge=0, le=3650)] = 0
    encoding: Literal["utf-8", "latin-1", "cp1252"] = "utf-8"
    # What stands between the cells of a CSV.
    delimiter: Literal[",", ";", "\t", "|"] = ","
    header: Literal["auto", "yes", "no"] = "auto"
    code_column: Annotated[int, Field(ge=0, le=1000)] | None = None
    description_column: Annotated[int, Field(ge=0, le=1000)] = 0
    code: Name | None = None
    cleaning: Annotated[tuple[CleaningStep, ...], Field(strict=False), at_most(50)] = ("lower", "strip")
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
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
        # The report of a day is written after midnight, and existing tools fetch yesterday's.
        url_days_ago=1,
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
PLACES: Final[Mapping[str, tuple[str, Literal["file", "folder", "url"]]]] = {
    "vague_terms_data_file": ("vague_terms", "file"),
    "extra_data_file": ("extra_references", "file"),
    "extra_references_data_file": ("extra_references", "file"),
    "cn_data_file": ("cn_self_texts", "file"),
    "search_references_file": ("search_references", "file"),
    "search_references_url": ("search_references", "url"),
    "commodities_report_file": ("commodities_report", "file"),
    "commodities_report_url": ("commodities_report", "url"),
    "brands_file": ("brands", "file"),
    "brands_data_file": ("brands", "file"),
    "tradesets_data_dir": ("tradesets", "folder"),
}


def source_tables(tables: object, findings: list[Finding]) -> list[dict[str, Any]]:
    path: Path = ("sources",)
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        message = "must be an array of tables. Write each source as a [[sources]] table."
        findings.append(Finding(path, message))
        return []
    if len(tables) > MOST_SOURCES:
        message = f"has {len(tables):,} tables, but at most {MOST_SOURCES} are allowed. Remove some of them."
        findings.append(Finding(path, message))
        return []
    return tables


def sources_of(
    raw: Mapping[str, Any], tables: list[dict[str, Any]], findings: list[Finding]
) -> Iterator[SourceConfig]:
    """The default sources that have a place, changed by the tables with their names, then other sources."""
    places = _places(raw, findings)
    given: dict[str, SourceConfig] = {}
    for index, table in enumerate(tables):
        path: Path = ("sources", index)
        name: Path = (*path, "name")
        findings += unknown_keys(table, SourceConfig, path)
        known = {key: value for key, value in table.items() if key in SourceConfig.model_fields}
        try:
            source = SourceConfig.model_validate(_base(known, places) | known)
        except ValidationError as exc:
            findings += findings_of(exc, path)
            continue
        if source.name in given:
            message = f"{source.name!r} is the name of an earlier source too. Give each source its own name."
            findings.append(Finding(name, message))
        findings += [Finding(path, problem, shown_at=name) for problem in _problems(source)]
        given[source.name] = source
    for default in DEFAULT_SOURCES:
        if default.name not in given and default.name in places:
            given[default.name] = default.model_copy(update=places[default.name])
    ranks = {source.name: rank for rank, source in enumerate(DEFAULT_SOURCES)}
    for source in sorted(given.values(), key=lambda source: ranks.get(source.name, len(ranks))):
        if source.enabled:
            yield source


def written_sources(
    raw: Mapping[str, Any], sources: Iterable[SourceConfig]
) -> Iterator[dict[str, str | bool | int | float | tuple[str, ...]]]:
    """The tables that give these sources again, together with the keys of `raw` that give places."""
    used = set()
    for source in sources:
        used.add(source.name)
        yield source.model_dump(exclude_none=True)
    for key, (name, _) in PLACES.items():
        if raw.get(key) is not None and name not in used:
            yield {"name": name, "enabled": False}


def _problems(source: SourceConfig) -> Iterator[str]:
    """What keeps a source from ever being read."""
    places = sum(place is not None for place in (source.file, source.folder, source.url))
    if places == 0 and source.enabled:
        yield "has no place. Set one of file, folder and url."
    if places > 1:
        yield "has more than one place. Keep one of file, folder and url."
    if source.kind == "csv" and source.code_column == source.description_column:
        yield (
            f"has column {source.code_column} for both codes and descriptions. Set code_column or "
            "description_column to another column. Columns are counted from 0."
        )


def _places(raw: Mapping[str, Any], findings: list[Finding]) -> dict[str, dict[str, str]]:
    """The places of default sources, by their names. Each source has one place."""
    places: dict[str, dict[str, str]] = {}
    first_key: dict[str, str] = {}
    for key, (source_name, field) in PLACES.items():
        if not isinstance(raw.get(key), str):
            continue
        if source_name in places:
            message = f"is set together with {first_key[source_name]}. Keep one of them."
            findings.append(Finding((key,), message))
            continue
        places[source_name] = {field: raw[key]}
        first_key[source_name] = key
    return places


def _base(table: Mapping[str, Any], places: Mapping[str, dict[str, str]]) -> dict[str, Any]:
    """The values that a table changes: those of the default source with its name, unless it has a place."""
    default = next((source for source in DEFAULT_SOURCES if source.name == table.get("name")), None)
    if default is None:
        return {}
    base = default.model_dump(exclude_none=True)
    return base if {"file", "folder", "url"} & table.keys() else base | places.get(default.name, {})
