"""Which descriptions of a benchmark got better and which got worse, between two models."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.registry.models.figures import measurement_of
from app.registry.models.predictions import Results
from app.registry.models.thresholds import counterpart

# How many descriptions of each kind are listed, and of how many benchmarks. All of them are counted.
MOST_LISTED = 50
MOST_BENCHMARKS = 20
_FIVE = 5


@dataclass(frozen=True, slots=True)
class Place:
    """The right code of a description, and its place among the answers. None if it is not among them."""

    code: str
    place: int | None


@dataclass(frozen=True)
class Places:
    """The places of a benchmark's right codes, by description. `measurement` is as in the figures."""

    measurement: int
    of: Mapping[str, Place]


@dataclass(frozen=True)
class Changed:
    """A description whose right code moved."""

    description: str
    code: str
    old_place: int | None
    new_place: int | None


@dataclass(frozen=True)
class Moved:
    """How many right codes moved in one way, and the first of them, by description."""

    count: int
    first: tuple[Changed, ...]


@dataclass(frozen=True)
class Changes:
    """What changed in a benchmark, among the `compared` descriptions that both models were asked."""

    benchmark: str
    compared: int
    entered_first: Moved
    left_first: Moved
    entered_first_five: Moved
    left_first_five: Moved


def places_of(results: Mapping[str, Results]) -> dict[str, Places]:
    """The places by benchmark. This needs far less memory than the answers themselves.

    Benchmarks whose descriptions deserve no code have no places.
    """
    found = {}
    for name, benchmark in results.items():
        of = {
            answer.description: Place(answer.codes[0], answer.rank)
            for answer in benchmark.answers
            if answer.codes
        }
        if of:
            found[name] = Places(measurement_of(benchmark.figures), of)
    return found


def changes(new: Mapping[str, Places], old: Mapping[str, Places]) -> list[Changes]:
    """What changed in each benchmark that both models have, and that was measured in the same way."""
    found = []
    for name in sorted(old):
        here = counterpart(name, new)
        if here is not None and new[here].measurement == old[name].measurement:
            found.append(_of_benchmark(here, new[here].of, old[name].of))
    return found[:MOST_BENCHMARKS]


def _of_benchmark(name: str, new: Mapping[str, Place], old: Mapping[str, Place]) -> Changes:
    both = [
        Changed(description, place.code, old[description].place, place.place)
        for description, place in sorted(new.items())
        if description in old
    ]
    return Changes(
        name,
        len(both),
        entered_first=_moved(one for one in both if _is_in(one.new_place, 1) > _is_in(one.old_place, 1)),
        left_first=_moved(one for one in both if _is_in(one.new_place, 1) < _is_in(one.old_place, 1)),
        entered_first_five=_moved(
            one for one in both if _is_in(one.new_place, _FIVE) > _is_in(one.old_place, _FIVE)
        ),
        left_first_five=_moved(
            one for one in both if _is_in(one.new_place, _FIVE) < _is_in(one.old_place, _FIVE)
        ),
    )


def _is_in(place: int | None, first: int) -> bool:
    """Whether the place is among the first ones."""
    return place is not None and place <= first


def _moved(found: Iterable[Changed]) -> Moved:
    every = list(found)
    return Moved(len(every), tuple(every[:MOST_LISTED]))
