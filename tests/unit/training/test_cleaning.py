from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lingua import Language, LanguageDetectorBuilder

from training.cleaning.cleaner import Cleaner, clean
from training.cleaning.codes import Nomenclature, code_changes, code_shape, cut, read_changes
from training.cleaning.language import LanguageRules, drop_other_languages
from training.cleaning.pairs import IncorrectPair, drop_incorrect_pairs, with_leading_zero
from training.cleaning.pipelines import CleaningLists, cleaners_for, read_lists
from training.cleaning.text import (
    DROP_EMPTY,
    DROP_NOISE,
    LOWER,
    NEGATION,
    PLURALS,
    STRIP,
    UNICODE,
    drop_short,
    normalised,
    remove_phrases,
)
from training.config import DEFAULT_SOURCES, SourceConfig, parse_config
from training.lookup import Lookup

KNOWN = Nomenclature(("01012100", "85211000"))
NO_LISTS = CleaningLists(
    phrases=(),
    pairs=(),
    language=LanguageRules(("ENGLISH",), ("ENGLISH", "GERMAN"), minimum_relative_distance=0.7),
)


def rows(*pairs: tuple[str, str]) -> pl.DataFrame:
    return pl.DataFrame(list(pairs), schema={"code": pl.String, "description": pl.String}, orient="row")


def described(cleaner: Cleaner | list[Cleaner], *descriptions: str) -> list[str]:
    """The descriptions that are kept, after cleaning them with the same valid code."""
    cleaners = cleaner if isinstance(cleaner, list) else [cleaner]
    return clean(rows(*(("01012100", text) for text in descriptions)), cleaners).kept["description"].to_list()


def coded(cleaner: Cleaner | list[Cleaner], *codes: str) -> list[str]:
    cleaners = cleaner if isinstance(cleaner, list) else [cleaner]
    return clean(rows(*((code, "text") for code in codes)), cleaners).kept["code"].to_list()


def source(name: str) -> list[Cleaner]:
    (found,) = [one for one in DEFAULT_SOURCES if one.name == name]
    return cleaners_for(found, 6, NO_LISTS, KNOWN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  two\t\tspaces \n", "two spaces"),
        ("toys.,", "toys"),
        ("toys,.", "toys"),
        ("toys . , .", "toys"),
        ("1.5 l, bottle", "1.5 l, bottle"),
        ("non\u00a0breaking", "non breaking"),
        (".,", ""),
    ],
)
def test_strip(text: str, expected: str) -> None:
    assert described(STRIP, text) == [expected]


@given(st.lists(st.text(), min_size=1))
def test_lower_and_strip_agree_with_lookups_and_are_idempotent(texts: list[str]) -> None:
    once = described([UNICODE, LOWER, STRIP], *texts)
    assert once == [normalised(text) for text in texts]
    assert described([STRIP], *once) == once
    assert all(text == "" or text[-1] not in " .," for text in once)


def test_empty_and_short_descriptions_are_dropped_with_their_reasons() -> None:
    cleaned = clean(rows(("01", ""), ("02", " "), ("03", "x"), ("04", "tv")), [DROP_EMPTY, drop_short(1)])
    assert cleaned.kept["description"].to_list() == ["tv"]
    assert cleaned.reasons == {"empty description": 2, "short description": 1}


@pytest.mark.parametrize(
    "text", ["123", "12 34", "12-34", "1,2", "12*34", "1 - 2, 3", "...", "./.", "/", "1.5", "-1.5", "+3"]
)
def test_noise_is_dropped(text: str) -> None:
    assert described(DROP_NOISE, text) == []


@pytest.mark.parametrize("text", ["12 v", "1.5l", "a", "no. 5", "5 %"])
def test_descriptions_with_a_word_are_not_noise(text: str) -> None:
    assert described(DROP_NOISE, text) == [text]


def test_longer_phrases_are_removed_before_shorter_ones_that_they_contain() -> None:
    phrases = ["no commercial value", "no commercial value declared", "(Declared)", "a+b"]
    assert described(
        [remove_phrases(phrases), STRIP],
        "toys no commercial value declared",
        "toys (declared)",
        "a+b toys aab",
    ) == ["toys", "toys", "toys aab"]


def test_no_phrases_change_nothing() -> None:
    assert described(remove_phrases(["", "  "]), "toys") == ["toys"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("women s dress", "womens dress"),
        ("women s and men s shoes", "womens and mens shoes"),
        ("size s", "size s"),
        ("dress size s red", "dress size s red"),
        ("boys s m l", "boys s m l"),
        ("shirt s m l", "shirt s m l"),
        ("shirt m s", "shirt m s"),
        ("1980 s radio", "1980s radio"),
        ("s m", "s m"),
    ],
)
def test_plurals(text: str, expected: str) -> None:
    assert described(PLURALS, text) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tomatoes, other than cherry tomatoes", "tomatoes"),
        ("some text, not other text", "some text"),
        ("some text, neither this nor that", "some text"),
        ("some text excluding other text", "some text"),
        ("some text, except other text", "some text"),
        ("some text, excl. other text", "some text"),
        ("live cattle <= 80 kg (excl. pure-bred for breeding)", "live cattle <= 80 kg"),
        ("shorts (other than swimwear) - women's", "shorts - women's"),
        ("fabrics other than knitted, crocheted or woven - felt", "fabrics - felt"),
        ("wine, not non-alcoholic wine", "wine"),
        ("meat (not offal (edible)) frozen", "meat frozen"),
        ("meat (not offal", "meat"),
        ("wood, whether or not planed", "wood, whether or not planed"),
        ("goods that cannot burn", "goods that cannot burn"),
        ("knot boards", "knot boards"),
        ("notebooks", "notebooks"),
        ("exceptional wine", "exceptional wine"),
        ("a\u00a0b", "a b"),
        ("not for food", ""),
        (
            "oysters, whether in shell or not, dried, salted or in brine",
            "oysters, whether in shell or not, dried, salted or in brine",
        ),
        ("musk, bile (dried or not), glands", "musk, bile (dried or not), glands"),
        ("in kits or  not, for malaria", "in kits or not, for malaria"),
        ("sands, which may or may not be coloured", "sands, which may or may not be coloured"),
        ("wood, graded but not planed", "wood, graded"),
        ("varnishes, which are not water-based", "varnishes"),
        ("projectors that do not have tuners and are not for computers", "projectors"),
        ("engines, for other than aircraft", "engines"),
        ("scrap of metal. this does not include ash", "scrap of metal"),
        ("beef with bone in, other than carcasses", "beef with bone in"),
        ("knives, (having other than fixed blades), serrated", "knives"),
        ("wool, (not carded), in bulk", "wool, in bulk"),
        ("clocks; (not alarm clocks), electric", "clocks; electric"),
        ("spirits (other than gin), in bottles", "spirits, in bottles"),
        ("goods that are new", "goods that are new"),
    ],
)
def test_negation(text: str, expected: str) -> None:
    assert described([NEGATION, STRIP], text) == [expected]


def test_a_description_that_becomes_empty_by_negation_is_dropped() -> None:
    cleaned = clean(rows(("01012100", "Excluding horses."), ("01012100", "Horses.")), source("cn_self_texts"))
    assert cleaned.kept.rows() == [("010121", "horses")]
    assert cleaned.reasons == {"short description": 1} or cleaned.reasons == {"empty description": 1}


def test_a_description_that_becomes_empty_by_removing_phrases_is_dropped() -> None:
    lists = CleaningLists(phrases=("no value",), pairs=(), language=NO_LISTS.language)
    (tradesets,) = [one for one in DEFAULT_SOURCES if one.name == "tradesets"]
    cleaned = clean(rows(("01012100", "No value")), cleaners_for(tradesets, 6, lists, KNOWN))
    assert cleaned.kept.height == 0


def test_codes_with_fewer_digits_or_other_characters_are_dropped() -> None:
    assert coded([code_shape(6), cut(6)], "010121", "0101210000", "01012", "01012x", "", "١٢٣٤٥٦") == [
        "010121",
        "010121",
    ]
    assert coded([code_shape(8), cut(8)], "01012100", "010121") == ["01012100"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("85211020", "85211000"),
        ("85272159", "85272130"),
        ("85287199", "85287100"),
        ("85299097", "85299096"),
        ("85044086", "85044084"),
        ("38011000", "38011010"),
        ("8521102010", "8521100010"),
        ("01012100", "01012100"),
        ("852110", "852110"),
    ],
)
def test_code_changes(old: str, new: str) -> None:
    assert coded(code_changes(), old) == [new]


def test_the_tables_of_code_changes_are_complete_and_have_8_digits() -> None:
    assert len(read_changes("2024-2025")) == 12
    assert len(read_changes("2025-2026")) == 14
    for table in ("2024-2025", "2025-2026"):
        for old, new in read_changes(table).items():
            assert old != new
            assert all(len(code) == 8 and code.isdigit() for code in (old, new))


def test_brands_with_6_and_8_digits_are_kept_at_6_and_at_8_digits() -> None:
    given_rows = rows(("640299", "Crocs"), ("04029110", "Muller milk"), ("85211020", "video"))
    (brands,) = [one for one in DEFAULT_SOURCES if one.name == "brands"]
    for digits, expected in ((6, ["640299", "040291", "852110"]), (8, ["64029900", "04029110", "85211000"])):
        assert (
            clean(given_rows, cleaners_for(brands, digits, NO_LISTS, KNOWN)).kept["code"].to_list()
            == expected
        )


def test_code_changes_that_move_a_subheading_reach_6_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    code_changes.cache_clear()
    monkeypatch.setattr("training.cleaning.codes.read_changes", lambda table: {"85211020": "85291000"})
    try:
        assert coded([code_changes(), cut(6)], "85211020") == ["852910"]
    finally:
        code_changes.cache_clear()


def test_incorrect_pairs() -> None:
    pairs = [
        IncorrectPair("macbook", "84", "15089090"),
        IncorrectPair("candles", "", "15211000"),
        IncorrectPair("books", "49", ""),
    ]
    kept = clean(
        rows(
            ("84713000", "macbook"),
            ("15089090", "macbook"),
            ("85171200", "macbook"),
            ("15211000", "candles"),
            ("15211099", "candles"),
            ("152110", "candles"),
            ("34060000", "candles"),
            ("49019900", "books"),
            ("39181090", "books"),
            ("39181090", "floor"),
        ),
        [drop_incorrect_pairs(pairs)],
    ).kept
    assert kept.rows() == [
        ("84713000", "macbook"),
        ("15211099", "candles"),
        ("34060000", "candles"),
        ("49019900", "books"),
        ("39181090", "floor"),
    ]


def test_a_lost_leading_zero_is_restored() -> None:
    assert [with_leading_zero(code) for code in ("3055390", "15211000", "9", "", "84")] == [
        "03055390",
        "15211000",
        "09",
        "",
        "84",
    ]


RULES = LanguageRules(
    preferred=("ENGLISH",),
    detected=("ENGLISH", "FRENCH", "GERMAN", "SPANISH"),
    minimum_relative_distance=0.7,
    exact_keeps=frozenset({"pendant"}),
    partial_keeps=("kinder bueno", " iso"),
    partial_skips=("kinder",),
)


def test_languages_are_decided_by_the_lists_and_then_by_lingua() -> None:
    texts = [
        "pendant",
        "kinder bueno schokolade für kinder",
        "kinder spielzeug",
        "chaussures en cuir pour hommes avec semelle",
        "leather shoes for men with rubber soles",
        "xq",
    ]
    cleaned = clean(rows(*(("01012100", text) for text in texts)), [drop_other_languages(RULES)])
    assert cleaned.kept["description"].to_list() == [texts[0], texts[1], texts[4], texts[5]]
    assert cleaned.reasons == {"term of another language": 1, "language french": 1}


WORDS = st.sampled_from(["schuhe", "d'or", "12", "5x", "pour", "-", "(", "shoes", "/b2", "zapatos", "été"])


@given(
    st.lists(st.lists(WORDS).flatmap(lambda words: st.sampled_from([" ", ""]).map(lambda by: by.join(words))))
)
def test_lingua_gives_the_same_answer_for_the_letters_of_a_text_as_for_the_whole_text(
    texts: list[str],
) -> None:
    names = ("ENGLISH", "FRENCH", "GERMAN", "SPANISH")
    detector = LanguageDetectorBuilder.from_languages(*(getattr(Language, name) for name in names))
    whole = detector.with_minimum_relative_distance(0.7).build()
    expected = [text for text in texts if whole.detect_language_of(text) in (None, Language.ENGLISH)]
    rules = LanguageRules(("ENGLISH",), names, 0.7)
    assert described(drop_other_languages(rules), *texts) == expected


def test_lingua_is_asked_once_about_each_distinct_text(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Undecided:
        def detect_languages_in_parallel_of(self, texts: list[str]) -> list[None]:
            asked.extend(texts)
            return [None] * len(texts)

    monkeypatch.setattr("training.cleaning.language._detector", lambda *_: Undecided())
    described(drop_other_languages(RULES), "cups 20 cm", "pendant", "cups 30 cm", "lids")
    assert asked == ["cups cm", "lids"]


def test_language_detection_with_nothing_to_ask() -> None:
    assert described(drop_other_languages(RULES)) == []
    assert described(drop_other_languages(RULES), "pendant") == ["pendant"]


def test_dropped_rows_keep_their_original_content_and_changes_are_counted() -> None:
    frame = rows(("85211020", " VIDEO "), ("85211020", " X ")).with_columns(line=pl.Series([2, 3]))
    cleaned = clean(frame, [LOWER, STRIP, drop_short(1), code_changes(), cut(6)])
    assert cleaned.dropped.rows() == [("85211020", " X ", 3, "short description")]
    assert cleaned.kept.rows() == [("852110", "video", 2)]
    assert cleaned.changed == {"lower": 2, "strip": 2, "code_changes": 1, "cut": 1}


@given(
    st.lists(st.tuples(st.text("0123456789 x", max_size=10), st.text(max_size=30)), max_size=8),
    st.sampled_from([one for one in DEFAULT_SOURCES if one.name != "tradesets"]),
    st.sampled_from([6, 8]),
)
def test_every_row_is_kept_or_dropped_and_what_is_kept_is_clean(
    pairs: list[tuple[str, str]], chosen: SourceConfig, digits: int
) -> None:
    cleaned = clean(rows(*pairs), cleaners_for(chosen, digits, NO_LISTS, KNOWN))
    assert cleaned.kept.height + cleaned.dropped.height == len(pairs)
    for code, description in cleaned.kept.iter_rows():
        assert description == normalised(description) != ""
        assert len(code) <= 10
        if "basic" in chosen.cleaning:
            assert len(code) == digits
            assert code.isdigit()


def test_the_teams_lists_are_read(tmp_path: Path) -> None:
    files = {
        "phrases_to_remove_file": "for customs purposes only\n",
        "exact_english_terms": "Pendant.\n",
        "partial_english_terms": " iso\n",
        "partial_non_english_terms": "kinder\n",
        "incorrect_description_pairs_file": (
            "GDSDESC,Chapter_ShouldBe,CMDTYCODE_Seen\n"
            '"BOTTLES *NCV,VALUE FOR CUSTOMS PURPOSES ONLY",,15092000\n'
            "antibiotics,9,3055390\n"
        ),
    }
    config = 'name = "m"\nversion = "0.1.0"\n'
    for key, content in files.items():
        (tmp_path / key).write_text(content)
        config += f'{key} = "{key}"\n'
    lists = read_lists(parse_config(config), Lookup(tmp_path, tmp_path))
    assert lists.phrases == ("for customs purposes only",)
    assert lists.pairs == (
        IncorrectPair("bottles *ncv,value", "", "15092000"),
        IncorrectPair("antibiotics", "09", "03055390"),
    )
    assert lists.language.exact_keeps == {"pendant"}
    assert lists.language.partial_keeps == (" iso",)
    assert lists.language.partial_skips == ("kinder",)


def test_what_looks_the_same_is_one_text() -> None:
    texts = [
        "caf\u00e9",
        "cafe\u0301",
        "ca\u00adf\u00e9",
        "\ufeffcaf\u00e9",
        "ca\u200bf\u00e9",
        "\u200ecaf\u00e9",
    ]
    assert set(described(source("cn_self_texts"), *(f"{text} noir" for text in texts))) == {"café noir"}
    assert {normalised(text) for text in texts} == {"café"}
    assert described([UNICODE, STRIP], "a\x00\x1bb\x7fc") == ["a b c"]


@pytest.mark.parametrize("text", ["null", "None", " NaN ", "n/a", "#N/A", "#REF!"])
def test_a_missing_value_is_not_a_description_unless_it_is_listed_as_vague(text: str) -> None:
    cleaned = clean(rows(("01012100", text)), source("search_references"))
    assert cleaned.reasons == {"missing value": 1}
    assert clean(rows(("vvvvvvvvvv", text)), source("vague_terms")).kept.height == 1
    assert clean(rows(("28051100", "Na")), source("search_references")).kept.height == 1


def test_a_word_of_one_character_is_not_too_short() -> None:
    assert described(source("cn_self_texts"), "酒", "술", "x", "7") == ["酒", "술"]


def test_a_cleaner_changes_and_drops_only_rows_that_it_concerns() -> None:
    frame = rows(("1", "ax"), ("2", "b"), ("3", "cx"), ("4", "dx"))
    cleaner = Cleaner(
        "x",
        description=pl.col("description") + "!",
        reason=pl.when(pl.col("code") == "3").then(pl.lit("three")),
        concerns=pl.col("description").str.contains("x"),
    )
    cleaned = clean(frame, [cleaner])
    assert cleaned.kept.rows() == [("1", "ax!"), ("2", "b"), ("4", "dx!")]
    assert cleaned.dropped.rows() == [("3", "cx", "three")]
    assert cleaned.changed == {"x": 2}
    assert [change.after for change in cleaned.samples["x"]] == ["ax!", "dx!"]
    assert clean(frame.filter(pl.col("code") == "2"), [cleaner]).kept.rows() == [("2", "b")]
