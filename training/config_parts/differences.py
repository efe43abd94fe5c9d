"""The differences between two configurations, value by value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from training.config_parts.lines import Path
from training.config_parts.problems import written
from training.config_parts.sources import PLACES
from training.config_parts.writing import toml_value

MOST_DIFFERENCES: Final = 100
"""How many differences are told. Two texts of a MiB each must not make a long answer."""

_LONGEST_VALUE: Final = 200
_DEEPEST: Final = 3


@dataclass(frozen=True)
class Difference:
    """A key that has another value in the text that was sent than in the one that is there.

    The values are written as in TOML, and shortened; None stands for a key that has no value.
    """

    key: str
    there: str | None
    sent: str | None


def differences_of(there: Mapping[str, object], sent: Mapping[str, object]) -> tuple[Difference, ...]:
    """The first differences, sorted by their keys. The order of keys does not count; that of sources does."""
    old, new = _values(there), _values(sent)
    found = {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}
    ranked = sorted((written(path), path) for path in _without_consequences(found, old, new))
    return tuple(
        Difference(key, _shown(old.get(path)), _shown(new.get(path)))
        for key, path in ranked[:MOST_DIFFERENCES]
    )


def _values(config: Mapping[str, object]) -> dict[Path, object]:
    """Every value by its path. A source has its name in the path, because its position may change."""
    found: dict[Path, object] = {}
    for key, value in config.items():
        if key == "sources" and isinstance(value, list | tuple):
            names = [str(of.get("name")) if isinstance(of, Mapping) else "" for of in value]
            found[key,] = names
            for name, of in zip(names, value, strict=True):
                _put(found, (key, name), of)
                found[key, name] = of
        else:
            _put(found, (key,), value)
    return found


def _put(found: dict[Path, object], path: Path, value: object) -> None:
    if isinstance(value, Mapping) and len(path) < _DEEPEST:
        for key, of in value.items():
            _put(found, (*path, str(key)), of)
    elif value is not None:
        found[path] = value


def _without_consequences(
    found: set[Path], old: Mapping[Path, object], new: Mapping[Path, object]
) -> set[Path]:
    """Without the differences that follow from others.

    A source that only one of the two has is one difference. So are the names of the sources, if only their
    order differs. The place of a source is not told beside a key that gives it, such as cn_data_file.
    """
    sources: Path = ("sources",)
    old_names, new_names = (
        set(names) if isinstance(names, list) else set() for names in (old.get(sources), new.get(sources))
    )
    only_one, both = old_names ^ new_names, old_names & new_names
    kept = {
        path
        for path in found
        if path[:1] != sources
        or (len(path) == 1 and not only_one)
        or (len(path) == 2 and path[1] in only_one)
        or (len(path) == 3 and path[1] in both)
    }
    for key, (name, _) in PLACES.items():
        if (key,) in found:
            kept -= {("sources", name), *(("sources", name, field) for field in ("file", "folder", "url"))}
    return kept


def _shown(value: object) -> str | None:
    if value is None:
        return None
    text = toml_value(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
