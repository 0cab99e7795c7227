"""Names read as words: what is folded, what is kept, and that nothing is refused."""

from __future__ import annotations

from importlib.resources import files

import nameoracle
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from core.comparison import compare
from core.normal import Name, prepare, words_of
from core.words import TABLE, WORDS, TableInvalid, load_words

PIECES = [
    *[
        "Acme",
        "GmbH",
        "gmbh",
        "Ltd.",
        "limited liability company",
        "S.A.",
        "B. V.",
        "& Co",
        "KG",
        "The",
        "and",
        "ООО",
        "АО",
    ],
    *[
        "Sp. z o.o.",
        "Al-Qa",
        "A/S",
        "II",
        "1st",
        "2000",
        "x",
        "Mr.",
        "bin",
        "Gießen",
        "Ærø",
        "محمد",
        "習近平",
        "नरेन्द्र",
        "U.S.",
    ],
    *[
        "SiemensAG",
        "PolPot",
        "JointStock Company",
        "de C.V.",
        "Intl",
        "-",
        ",",
        "№",
        "😀",
        "\u0301",
        "\ud800",
        "(",
        "Σ",
        "İ",
    ],
]
names = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=9).map(" ".join)


def words(text: str, person: bool = False) -> str:
    return " ".join(word for word, *_ in words_of(text, person))


@pytest.mark.parametrize(
    ("text", "compared"),
    [
        ("ACME Trading", "acme trading"),
        ("Crédit Agricole", "credit agricole"),
        ("Straße", "strasse"),
        ("Владимир Путин", "vladimir putin"),
        ("Κυριάκος Μητσοτάκης", "kyriakos mitsotakis"),
        ("محمد بن سلمان", "mhmd bn slmn"),
        ("習近平", "xijinping"),
        ("People’s Army", "peoples army"),
        ("Al-Qa'ida", "al qaida"),
        ("A.B.C. Company", "abc co"),
        ("A B C Company", "abc co"),
        ("Blackstone V L.P.", "blackstone v lp"),
        ("Procter & Gamble", "procter gamble"),
        ("Procter and Gamble", "procter gamble"),
        ("The", "the"),
        ("Deutsche Bank Aktiengesellschaft", "deutsche bank ag"),
        ("Stripe Limited Liability Company", "stripe llc"),
        ("ООО «Ромашка»", "llc romashka"),
        ("Volkswagen Gesellschaft mit beschränkter Haftung", "volkswagen gmbh"),
        ("Faberlic Sp. z o.o.", "faberlic zoo"),
        ("SiemensAG", "siemens ag"),
        ("SergeiLavrov", "sergeilavrov"),
        ("McDonald", "mcdonald"),
        ("First Bank Int’l", "1 bank international"),
        ("U.S. Steel", "united states steel"),
        ("😀", ""),
        ("", ""),
        ("x" * 40, f"{'x' * 32} {'x' * 8}"),
    ],
)
def test_a_name_is_read_as_these_words(text: str, compared: str) -> None:
    assert words(text) == compared
    assert prepare(text, "Company").tokens() == tuple(compared.split())


def test_names_of_persons_have_no_legal_form_to_part_off() -> None:
    assert words("LeeSA", person=True) == "leesa"
    assert prepare("LeeSA", "Person").tokens() == ("leesa",)
    assert prepare("LeeSA", None).tokens() == ("lee", "sa")


@given(names, st.booleans())
@example("A.B.C D e", False)
def test_words_are_those_of_a_plain_reading(text: str, person: bool) -> None:
    # An apostrophe within dotted initials is read either way.
    assume(not ("." in nameoracle.latin(text) and set("'`") & set(nameoracle.latin(text))))
    plain = nameoracle.words_of(text, person)
    assume(len(plain) < 24 and max(map(len, nameoracle.written(text, person)), default=0) < 32)
    found = words_of(text, person)
    assert [word for word, *_ in found] == plain
    assert [(person, organisation) for _, _, person, organisation in found] == [WORDS.weight(word) for word in plain]


@given(st.text(st.characters(exclude_categories=()), max_size=512), st.sampled_from([None, "Person", "Company"]))
@example("\ud800", None)
@example("x " * 256, None)
@example("x" * 512, None)
@example("㍿" * 512, None)
@example("ﷺ" * 512, None)
@example("😀" * 512, "Person")
def test_nothing_is_refused(text: str, schema: None) -> None:
    name = prepare(text, schema)
    assert len(name.tokens()) <= 24
    assert all(1 <= len(word) <= 32 and word.isascii() and word.isalnum() for word in name.tokens())
    assert compare(name, name, None) == (1.0 if name.tokens() else 0.0)


def test_what_lies_beyond_the_last_word_still_tells_names_apart() -> None:
    many = [f"word{i}" for i in range(200)]
    for length in (24, 25, 95, 96, 97, 199):
        long, longer = prepare(" ".join(many[:length])), prepare(" ".join(many[: length + 1]))
        assert compare(long, longer, False) < 1.0
        assert compare(long, prepare(" ".join(many[:length])), False) == 1.0


def test_a_name_is_made_by_prepare_alone() -> None:
    with pytest.raises(TypeError, match=r"made by prepare\(\)"):
        Name()


def test_the_table_tells_its_source_and_date() -> None:
    assert WORDS.source
    assert WORDS.as_of[:7] in TABLE


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("numerals:", "numbers:", "'numerals' is missing"),
        ("  inc: [", "  inc: 5 #[", "another form|two words"),
        ("  corp: [", "  corp: [limited, ", "'limited' stands under two words"),
        ("  full: [100, 100]", "  full: [100, many]", "another form"),
        ("as_of:", "as_of: [", "line"),
    ],
)
def test_a_table_with_a_fault_is_refused(old: str, new: str, fault: str) -> None:
    text = files("core").joinpath(TABLE).read_text()
    assert old in text
    with pytest.raises(TableInvalid, match=fault):
        load_words(text.replace(old, new, 1).encode())
