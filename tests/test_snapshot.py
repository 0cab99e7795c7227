"""The bytes of a name index: where they may lie, and that damage is told and never followed."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from listed import ENTITIES, asked, company, found, index_of
from snapshots import LAYOUT, SPANS, STAMP, kept_fields, of_another_engine, of_another_layout, sealed, with_entities

from core.entities import Entity
from core.names import NameIndex, SnapshotDamaged, SnapshotOutdated
from core.snapshot import ENGINE, entities_of

SNAPSHOT = NameIndex.build(ENTITIES)
N_SECTIONS = 24


def test_the_same_list_gives_the_same_bytes() -> None:
    assert NameIndex.build(iter(ENTITIES)) == SNAPSHOT
    assert sealed(bytearray(SNAPSHOT)) == SNAPSHOT


def test_a_snapshot_is_used_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "names"
    path.write_bytes(SNAPSHOT)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for buffer in (SNAPSHOT, bytearray(SNAPSHOT), memoryview(SNAPSHOT), memoryview(b"x" + SNAPSHOT)[1:], mapped):
        index = NameIndex(buffer)
        assert found(index, asked("Akme Trading"))[0][0] == "e-1"
        assert index.n_bytes == len(SNAPSHOT)


def test_an_index_holds_its_bytes() -> None:
    memory = bytearray(SNAPSHOT)
    index = NameIndex(memory)
    with pytest.raises(BufferError):
        memory.clear()
    assert index.entity(0) == ENTITIES[0]
    del index
    memory.clear()


@given(st.integers(0, 8 * len(SNAPSHOT) - 1))
def test_a_flipped_bit_is_told(bit: int) -> None:
    damaged = bytearray(SNAPSHOT)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SnapshotDamaged):
        NameIndex(bytes(damaged))


@given(st.integers(0, len(SNAPSHOT) - 1))
def test_a_snapshot_cut_short_is_told(length: int) -> None:
    with pytest.raises(SnapshotDamaged, match=r"at least|was written with"):
        NameIndex(SNAPSHOT[:length])


def test_what_is_no_snapshot_is_told() -> None:
    with pytest.raises(SnapshotDamaged, match="does not begin"):
        NameIndex(bytes(1000))
    with pytest.raises(SnapshotDamaged, match="has"):
        NameIndex(SNAPSHOT + bytes(8))
    with pytest.raises(TypeError):
        NameIndex("text")  # type: ignore[arg-type]


@pytest.mark.parametrize(("place", "said"), [(LAYOUT, "layout"), (STAMP, "another table of words")])
def test_a_snapshot_of_another_engine_is_outdated(place: int, said: str) -> None:
    other = bytearray(SNAPSHOT)
    other[place] ^= 1
    with pytest.raises(SnapshotOutdated, match=said):
        NameIndex(sealed(other))


@pytest.mark.parametrize("of_another", [of_another_engine, of_another_layout])
def test_a_snapshot_of_another_engine_can_be_compiled_again(of_another: Callable[[bytes], bytes]) -> None:
    other = of_another(SNAPSHOT)
    with pytest.raises(SnapshotOutdated):
        NameIndex(other)
    assert NameIndex.build(entities_of(memoryview(other))) == SNAPSHOT


def test_what_another_engine_keeps_of_an_entity_besides_is_left_out() -> None:
    more = with_entities(
        of_another_engine(SNAPSHOT), [[*kept_fields(entity), "more", {"yet": 1}] for entity in ENTITIES]
    )
    assert list(entities_of(more)) == ENTITIES


def test_an_entity_that_only_another_engine_can_read_is_told() -> None:
    fields = kept_fields(ENTITIES[1])
    fields[1] = "Spaceship"
    other = with_entities(of_another_engine(SNAPSHOT), [kept_fields(ENTITIES[0]), fields])
    entities = entities_of(other)
    assert next(entities) == ENTITIES[0]
    with pytest.raises(SnapshotOutdated, match="its entity 1 cannot be read"):
        next(entities)


@given(st.integers(0, 8 * len(SNAPSHOT) - 1))
def test_no_entities_are_read_from_what_is_damaged(bit: int) -> None:
    damaged = bytearray(of_another_layout(SNAPSHOT))
    damaged[bit // 8 % len(damaged)] ^= 1 << bit % 8
    with pytest.raises(SnapshotDamaged):
        entities_of(damaged)


@pytest.mark.parametrize("length", [0, 7, SPANS, SPANS + 16 * 16 - 1])
def test_no_entities_are_read_from_what_is_too_short(length: int) -> None:
    with pytest.raises(SnapshotDamaged, match="at least"):
        entities_of(SNAPSHOT[:length])


@given(st.integers(0, 16 * N_SECTIONS - 4) | st.integers(0, len(SNAPSHOT) - SPANS - 4), st.integers(0, 2**32 - 1))
def test_entities_at_wrong_places_under_a_right_checksum_crash_nothing(place: int, value: int) -> None:
    other = bytearray(of_another_engine(SNAPSHOT))
    struct.pack_into("<I", other, SPANS + place // 4 * 4, value)
    with suppress(SnapshotDamaged, SnapshotOutdated):
        list(entities_of(sealed(other)))


def test_the_engine_has_a_number_that_every_database_can_keep() -> None:
    assert 0 < ENGINE < 2**31


@pytest.mark.parametrize("section", range(N_SECTIONS))
def test_a_section_outside_of_the_snapshot_is_told(section: int) -> None:
    for offset, value in ((0, len(SNAPSHOT) + 8), (0, 2**63), (0, 4), (8, 2**40), (8, 2**64 - 1)):
        other = bytearray(SNAPSHOT)
        struct.pack_into("<Q", other, SPANS + 16 * section + offset, value)
        with pytest.raises(SnapshotDamaged, match=r"section|fit|points outside"):
            NameIndex(sealed(other))


@given(st.integers(SPANS + 16 * N_SECTIONS, len(SNAPSHOT) - 4), st.integers(0, 2**32 - 1))
def test_numbers_that_are_wrong_under_a_right_checksum_crash_nothing(place: int, value: int) -> None:
    other = bytearray(SNAPSHOT)
    struct.pack_into("<I", other, place // 4 * 4, value)
    try:
        index = NameIndex(sealed(other))
    except SnapshotDamaged:
        return
    for name in ("Acme Trading GmbH", "Завод 5", "Maria Musterfrou"):
        with suppress(SnapshotDamaged):
            index.search(asked(name, person=None, countries=("DE",), birth_date="1970"), 0.0, 10)
    for ordinal in range(index.n_entities):
        with suppress(SnapshotDamaged):
            index.entity(ordinal)


def test_an_entity_with_too_many_names_is_refused() -> None:
    with pytest.raises(ValueError, match="'many' has more than 65,535 names"):
        NameIndex.build([Entity("many", "Company", "other", ("x",) * 65536)])


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        NameIndex.build([company("\ud800")])


def test_a_name_without_words_stays_with_its_entity() -> None:
    index = index_of(company("☃"))
    assert (index.n_names, index.entity(0).names) == (1, ("☃",))
