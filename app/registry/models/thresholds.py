"""How much worse than its baseline a model may be: a TOML file of thresholds, in the team's form or in ours.

docs/validation.md describes both forms.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from app.settings import Settings, SettingsError
from app.words import Breach, Direction
from training.config import (
    ConfigError,
    Figure,
    Finding,
    error_of,
    findings_of,
    name_in_existing_tools,
    parse_toml,
    shown,
    unknown_keys,
)

EVERY_BENCHMARK: Final = "*"
RIGHT: Final = "right"
"""The share of right answers: `top_1`, or `no_result` where no description should get an answer."""
ANSWERED: Final = "answered"
"""The share of descriptions that got an answer, `1 - no_result`."""
FIGURES: Final = frozenset({*get_args(Figure), "not_found"})
"""The figures that a benchmark can have. Each is a share from 0 to 1."""

# The longest file, in characters, and the most thresholds in it.
LONGEST: Final = 64 << 10
MOST: Final = 100

_TEAMS_FILE: Final = re.compile(r"(?:.*/)?benchmark_results_([A-Za-z0-9_-]+)\.json")
_TEAMS_KEYS: Final = {
    **{f"result{place}Percent": f"top_{place}" for place in range(1, 6)},
    "inTop5Percent": "top_5",
    "answeredPercent": ANSWERED,
}


@dataclass(frozen=True)
class Limits:
    """From how much worse on a change counts as high, medium or low. None where it never does."""

    high: float | None = None
    medium: float | None = None
    low: float | None = None

    def breach(self, worse: float) -> Breach | None:
        """The breach by a change for the worse. One that is exactly at a limit does not exceed it."""
        for breach, limit in ((Breach.HIGH, self.high), (Breach.MEDIUM, self.medium), (Breach.LOW, self.low)):
            # Differences of shares are rounded, so that 0.62 - 0.60 is 2 points and not a little more.
            if limit is not None and round(worse, 6) > limit:
                return breach
        return None


@dataclass(frozen=True)
class Threshold:
    """How far one figure of a benchmark may get worse. The limits are in percentage points."""

    name: str
    benchmark: str
    metric: str
    direction: Direction
    limits: Limits

    def selects(self, benchmark: str) -> bool:
        return self.benchmark == EVERY_BENCHMARK or same_benchmark(self.benchmark, benchmark)


@dataclass(frozen=True)
class DataRules:
    """How much less data than its baseline a model may be trained on. The limits are in percent.

    A model of less than `fewest_rows` or `fewest_classes` fails, whatever it is compared with.
    """

    rows: Limits = Limits(high=50.0, medium=20.0, low=5.0)
    classes: Limits = Limits(high=25.0, medium=5.0, low=1.0)
    source_rows: Limits = Limits(medium=50.0, low=20.0)
    fewest_rows: int = 2
    fewest_classes: int = 2


@dataclass(frozen=True)
class Rules:
    """What decides about a model."""

    thresholds: tuple[Threshold, ...]
    data: DataRules = DataRules()


def same_benchmark(one: str, other: str) -> bool:
    """Whether two names mean the same benchmark. The team calls good-goods-descriptions good_goods."""
    return one == other or name_in_existing_tools(one) == name_in_existing_tools(other)


def counterpart(benchmark: str, among: Collection[str]) -> str | None:
    """The name among these that means this benchmark: itself, or else the first that means the same."""
    if benchmark in among:
        return benchmark
    return next((name for name in sorted(among) if same_benchmark(name, benchmark)), None)


def default_rules(tolerance: float) -> Rules:
    """The rules where nobody gave any: the share of right answers falls by no more than the tolerance."""
    limits = Limits(high=round(tolerance * 100, 6))
    named = Threshold("Right answers", EVERY_BENCHMARK, RIGHT, Direction.INCREASE_IS_GOOD, limits)
    return Rules((named,))


Form = TypeVar("Form", bound="_Section")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


_Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
_Worse = Annotated[float, Field(ge=0, le=100)]
_Direction = Literal["increase_is_good", "increase_is_bad"]


class _Limits(_Section):
    high: _Worse | None = None
    medium: _Worse | None = None
    low: _Worse | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_order(self.limits, "high, medium and low")
        return self

    @property
    def limits(self) -> Limits:
        return Limits(self.high, self.medium, self.low)


class _Ours(_Limits):
    name: _Name
    benchmark: _Name
    metric: _Name
    direction: _Direction

    @model_validator(mode="after")
    def _known_metric(self) -> Self:
        known = sorted({*FIGURES, RIGHT, ANSWERED})
        if self.metric not in known:
            message = f"metric is {shown(self.metric)}, but must be one of {', '.join(known)}"
            raise ValueError(message)
        return self

    def threshold(self) -> Threshold:
        return Threshold(self.name, self.benchmark, self.metric, Direction(self.direction), self.limits)


_Change = Annotated[float, Field(ge=-100, le=100)]


class _Teams(_Section):
    """A threshold as the team's tools read it. Their names are kept, because messages quote them."""

    name: _Name
    presented_name: _Name | None = None
    file: _Name
    key: _Name
    direction: _Direction
    changeHigh: _Change | None = None  # noqa: N815
    changeMedium: _Change | None = None  # noqa: N815
    changeLow: _Change | None = None  # noqa: N815

    @model_validator(mode="after")
    def _read(self) -> Self:
        if not _TEAMS_FILE.fullmatch(self.file):
            message = (
                f"file is {shown(self.file)}, but must name a file such as benchmark_results_classified.json"
            )
            raise ValueError(message)
        if self.key not in _TEAMS_KEYS:
            message = f"key is {shown(self.key)}, but must be one of {', '.join(_TEAMS_KEYS)}"
            raise ValueError(message)
        changes = [change for change in self._changes if change is not None]
        falls = self.direction == "increase_is_good"
        if any(change > 0 if falls else change < 0 for change in changes):
            sign, what = ("negative", "falls") if falls else ("positive", "rises")
            message = (
                f"with the direction {self.direction}, a figure gets worse when it {what}, so the changes "
                f"must be {sign}"
            )
            raise ValueError(message)
        _check_order(self._limits, "changeHigh, changeMedium and changeLow")
        return self

    @property
    def _changes(self) -> tuple[float | None, float | None, float | None]:
        return self.changeHigh, self.changeMedium, self.changeLow

    @property
    def _limits(self) -> Limits:
        return Limits(*(None if change is None else abs(change) for change in self._changes))

    def threshold(self) -> Threshold:
        found = _TEAMS_FILE.fullmatch(self.file)
        benchmark = "" if found is None else found[1]
        return Threshold(self.name, benchmark, _TEAMS_KEYS[self.key], Direction(self.direction), self._limits)


def _check_order(limits: Limits, names: str) -> None:
    given = [limit for limit in (limits.high, limits.medium, limits.low) if limit is not None]
    if not given:
        raise ValueError(f"gives none of {names}. Give at least one of them.")
    if given != sorted(given, reverse=True):
        raise ValueError(f"has limits in the wrong order. Of {names}, the first must be the largest change.")


_DEFAULT_DATA: Final = DataRules()


class _Data(_Section):
    rows: _Limits | None = None
    classes: _Limits | None = None
    source_rows: _Limits | None = None
    fewest_rows: Annotated[int, Field(ge=1, le=1_000_000_000)] = _DEFAULT_DATA.fewest_rows
    fewest_classes: Annotated[int, Field(ge=1, le=1_000_000_000)] = _DEFAULT_DATA.fewest_classes

    def rules(self) -> DataRules:
        return DataRules(
            rows=_DEFAULT_DATA.rows if self.rows is None else self.rows.limits,
            classes=_DEFAULT_DATA.classes if self.classes is None else self.classes.limits,
            source_rows=_DEFAULT_DATA.source_rows if self.source_rows is None else self.source_rows.limits,
            fewest_rows=self.fewest_rows,
            fewest_classes=self.fewest_classes,
        )


class _File(_Section):
    """The tables of a file."""

    thresholds: list[Any] | None = None
    data: dict[str, Any] | None = None


def default_thresholds(settings: Settings) -> str | None:
    """The text of the file that the settings name; None if they name none. Raises SettingsError."""
    path = settings.thresholds_file
    if path is None:
        return None
    try:
        text = path.read_text("utf-8")
        if len(text) > LONGEST:
            message = f"has {len(text):,} characters, and at most {LONGEST:,} are allowed"
            raise SettingsError(f"REGISTRY_THRESHOLDS_FILE: {path} {message}.")
        parse(text)
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"REGISTRY_THRESHOLDS_FILE: {path} cannot be read: {exc}") from exc
    except ConfigError as exc:
        raise SettingsError(f"REGISTRY_THRESHOLDS_FILE: {path} cannot be used: {exc}") from exc
    return text


def rules_of(text: str | None, tolerance: float) -> Rules:
    """The rules of a stored file, or those that the registry has itself. Raises ConfigError."""
    return default_rules(tolerance) if text is None else parse(text, tolerance)


def parse(text: str, tolerance: float = 0.0) -> Rules:
    """Read a file of thresholds, in which both forms may stand. Raises ConfigError with all problems.

    Where the file has no `[[thresholds]]`, those of `default_rules` decide.
    """
    raw = parse_toml(text)
    findings: list[Finding] = list(unknown_keys(raw, _File, ()))
    if not raw:
        findings.append(Finding((), "has no [[thresholds]]. Add some, or send no file."))
    named = raw.get("thresholds")
    thresholds = tuple(_thresholds(named, findings)) if named is not None else ()
    data = _data(raw.get("data"), findings)
    if findings:
        raise error_of(findings, text.removeprefix("\ufeff"))
    if named is None:
        return Rules(default_rules(tolerance).thresholds, data)
    return Rules(thresholds, data)


def _thresholds(entries: Any, findings: list[Finding]) -> Iterator[Threshold]:
    path = ("thresholds",)
    if not isinstance(entries, list) or not entries:
        findings.append(Finding(path, "must be one or more tables. Write each as [[thresholds]]."))
        return
    if len(entries) > MOST:
        findings.append(Finding(path, f"has {len(entries):,} entries, but at most {MOST} are allowed."))
        return
    for index, entry in enumerate(entries):
        here = (*path, index)
        if not isinstance(entry, Mapping):
            findings.append(Finding(here, "must be a table. Write it as [[thresholds]]."))
            continue
        form: type[_Ours] | type[_Teams] = _Teams if {"file", "key"} & entry.keys() else _Ours
        found = _read(form, entry, here, findings)
        if found is not None:
            yield found.threshold()


def _data(table: Any, findings: list[Finding]) -> DataRules:
    if table is None:
        return _DEFAULT_DATA
    if not isinstance(table, Mapping):
        findings.append(Finding(("data",), "must be a table. Write it as [data]."))
        return _DEFAULT_DATA
    for key in ("rows", "classes", "source_rows"):
        if isinstance(table.get(key), Mapping):
            findings += unknown_keys(table[key], _Limits, ("data", key))
    found = _read(_Data, table, ("data",), findings)
    return _DEFAULT_DATA if found is None else found.rules()


def _read(
    form: type[Form], table: Mapping[str, Any], here: tuple[str | int, ...], findings: list[Finding]
) -> Form | None:
    """The table as the form describes it. None if it has problems, which are added to the findings."""
    findings += unknown_keys(table, form, here)
    try:
        return form.model_validate(table)
    except ValidationError as exc:
        findings += findings_of(exc, here)
        return None
