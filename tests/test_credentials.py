"""The texts of keys: recognised whole, and never once a character of them changed."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.credentials import ALPHABET, ID_CHARS, LONGEST_BYTES, SECRET_CHARS, digest, mint, recognise

ENVIRONMENTS = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=16)


@given(ENVIRONMENTS)
def test_a_minted_key_is_recognised_by_its_id(environment: str) -> None:
    text, id = mint(environment)
    assert recognise(text.encode()) == id
    assert text.startswith(f"kyb_{environment}_{id}")
    assert re.fullmatch(r"[0-9A-Za-z]{12}", id)
    assert len(text) == len(f"kyb_{environment}_") + ID_CHARS + SECRET_CHARS + 6 <= LONGEST_BYTES


@given(st.data())
def test_a_key_with_any_one_character_changed_is_not_recognised(data: st.DataObject) -> None:
    text = mint("live").text.encode()
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[place]))
    assert recognise(text[:place] + bytes((other,)) + text[place + 1 :]) is None


@given(st.data())
def test_a_key_with_two_characters_in_each_others_place_is_not_recognised(data: st.DataObject) -> None:
    text = bytearray(mint("live").text.encode())
    one, two = data.draw(st.lists(st.integers(9, len(text) - 1), min_size=2, max_size=2, unique=True))
    before = bytes(text)
    text[one], text[two] = text[two], text[one]
    assert recognise(bytes(text)) == (recognise(before) if bytes(text) == before else None)


@given(st.binary(max_size=2 * LONGEST_BYTES))
def test_what_is_no_key_is_not_recognised(text: bytes) -> None:
    assert recognise(text) is None


@pytest.mark.parametrize("change", ["{} ", " {}", "{}\n", "{}0", "Bearer {}", "{}{}"])
def test_a_key_with_more_around_it_is_not_recognised(change: str) -> None:
    text = mint("live").text
    assert recognise(change.format(text, text).encode()) is None


@pytest.mark.parametrize("environment", ["", "Live", "e" * 17, "a_b", "a-b", "a\n"])
def test_an_environment_that_would_not_be_recognised_is_refused(environment: str) -> None:
    with pytest.raises(ValueError, match="no name of an environment"):
        mint(environment)


def test_no_two_keys_are_alike() -> None:
    minted = [mint("live") for _ in range(1000)]
    assert len({id for _, id in minted}) == len({text[21:48] for text, _ in minted}) == 1000
    assert {character for text, _ in minted for character in text[9:48]} == set(ALPHABET)


def test_the_digest_depends_on_the_key_and_on_the_secret() -> None:
    one, two = mint("live").text.encode(), mint("live").text.encode()
    assert len(digest(one, b"secret")) == 32
    assert len({digest(one, b"secret"), digest(two, b"secret"), digest(one, b"other")}) == 3
    assert digest(one, b"secret") == digest(one, b"secret")
