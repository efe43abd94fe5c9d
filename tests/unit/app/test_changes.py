"""Which right codes moved between the answers of two models."""

from hypothesis import given
from hypothesis import strategies as st

from app.registry.models.changes import MOST_LISTED, Changed, Changes, changes, places_of
from app.registry.models.predictions import Answer, Prediction, Results


def results(
    places: dict[str, int | None], name: str = "everyday", measurement: int = 1
) -> dict[str, Results]:
    """Results with the right code of each description at its place."""
    answers = tuple(
        Answer(
            description,
            ("620342",),
            tuple(Prediction("620342" if at == place else f"{at:06}", 0.1) for at in range(1, 8)),
        )
        for description, place in places.items()
    )
    return {name: Results(name, {"top_1": 0.5, "measurement": measurement}, answers)}


def compared(new: dict[str, int | None], old: dict[str, int | None]) -> Changes:
    [found] = changes(places_of(results(new)), places_of(results(old)))
    return found


def test_a_right_code_enters_and_leaves_the_first_place_and_the_first_five() -> None:
    found = compared(
        {"better": 1, "worse": 2, "gone": None, "far": 6, "near": 5, "same": 1, "new": 1},
        {"better": 2, "worse": 1, "gone": 1, "far": 5, "near": 7, "same": 1, "old": 1},
    )
    assert found.compared == 6
    assert found.entered_first.first == (Changed("better", "620342", 2, 1),)
    assert [one.description for one in found.left_first.first] == ["gone", "worse"]
    assert found.entered_first_five.first == (Changed("near", "620342", 7, 5),)
    assert [one.description for one in found.left_first_five.first] == ["far", "gone"]


def test_only_the_first_descriptions_are_listed_and_all_are_counted() -> None:
    many: dict[str, int | None] = {f"{number:04}": 1 for number in range(MOST_LISTED + 10)}
    found = compared(many, dict.fromkeys(many))
    assert found.entered_first.count == MOST_LISTED + 10
    assert [one.description for one in found.entered_first.first] == sorted(many)[:MOST_LISTED]


def test_benchmarks_are_matched_by_the_teams_names_and_by_their_measurement() -> None:
    ours = places_of(results({"a": 1}, "good-goods-descriptions"))
    theirs = places_of(results({"a": 2}, "good_goods"))
    assert [one.benchmark for one in changes(ours, theirs)] == ["good-goods-descriptions"]
    assert changes(ours, places_of(results({"a": 2}, "classified"))) == []
    assert changes(ours, places_of(results({"a": 2}, "good_goods", measurement=2))) == []
    # Descriptions that deserve no code have no place.
    vague = {"vague": Results("vague", {"no_result": 1}, (Answer("goods", (), ()),))}
    assert places_of(vague) == {}


PLACES = st.dictionaries(st.sampled_from("abcdefgh"), st.one_of(st.none(), st.integers(1, 7)), max_size=8)


@given(PLACES, PLACES)
def test_what_entered_one_way_left_the_other_way(
    new: dict[str, int | None], old: dict[str, int | None]
) -> None:
    there = changes(places_of(results(new)), places_of(results(old)))
    back = changes(places_of(results(old)), places_of(results(new)))
    assert [one.entered_first.count for one in there] == [one.left_first.count for one in back]
    assert [one.left_first_five.count for one in there] == [one.entered_first_five.count for one in back]
    for one in there:
        in_first = len([name for name, place in new.items() if place == 1 and name in old])
        were_first = len([name for name, place in old.items() if place == 1 and name in new])
        assert in_first - were_first == one.entered_first.count - one.left_first.count
