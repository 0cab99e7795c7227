"""The tier in the process, and the envelope of values in Redis: neither needs a server."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cache.envelope import ABSENT, FORMAT, seal, unseal
from app.cache.invalidation import pack, unpack
from app.cache.local import ENTRY_BYTES, LARGEST_SHARE, MISSING, Key, Local

ROOMY_BYTES = 1_000_000
IDENTITY = ("assessment", "1", "tenant", b"key")


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def name(number: int) -> Key:
    return "assessment", "tenant", b"%d" % number


def exact(max_entries: int = 100, max_bytes: int = ROOMY_BYTES, clock: Clock | None = None) -> Local:
    return Local(max_entries, max_bytes, jitter=0, clock=clock or Clock())


def test_what_was_put_is_found_and_what_was_not_is_missing() -> None:
    local = exact()
    local.put(name(1), "one", 3, 10)
    assert local.get(name(1)) == "one"
    assert local.get(name(2)) is MISSING
    assert (local.hits, local.misses, local.entries, local.size_bytes) == (1, 1, 1, 3 + ENTRY_BYTES)


def test_no_value_is_a_value() -> None:
    local = exact()
    local.put(name(1), None, 0, 10)
    assert local.get(name(1)) is None


def test_an_entry_goes_when_its_time_is_up() -> None:
    clock = Clock()
    local = exact(clock=clock)
    local.put(name(1), "one", 3, 10)
    clock.now_s = 9.9
    assert local.get(name(1)) == "one"
    clock.now_s = 10
    assert local.get(name(1)) is MISSING
    assert (local.entries, local.size_bytes, local.evictions) == (0, 0, 0)


def test_what_came_together_does_not_go_together_and_none_stays_too_long() -> None:
    clock = Clock()
    local = Local(1000, ROOMY_BYTES, jitter=0.2, clock=clock)
    for number in range(500):
        local.put(name(number), number, 0, 10)
    left = []
    for clock.now_s in (7.9, 9, 10):
        left.append(sum(local.get(name(number)) is not MISSING for number in range(500)))
    assert left[0] == 500
    assert 100 < left[1] < 400
    assert left[2] == 0


def test_the_entry_used_longest_ago_makes_room() -> None:
    local = exact(max_entries=3)
    for number in (1, 2, 3):
        local.put(name(number), number, 0, 10)
    local.get(name(1))
    local.put(name(4), 4, 0, 10)
    assert [local.get(name(number)) for number in (1, 2, 3, 4)] == [1, MISSING, 3, 4]
    assert local.evictions == 1


def test_a_value_too_large_is_not_kept_and_takes_the_place_of_no_other() -> None:
    local = exact(max_bytes=LARGEST_SHARE * 10_000)
    local.put(name(1), "small", 10_000 - ENTRY_BYTES, 10)
    local.put(name(2), "large", 10_001 - ENTRY_BYTES, 10)
    assert local.get(name(1)) == "small"
    assert local.get(name(2)) is MISSING
    local.put(name(1), "grown", 10_001 - ENTRY_BYTES, 10)
    assert local.get(name(1)) is MISSING
    assert local.size_bytes == 0


def test_who_cannot_hear_of_changes_keeps_nothing_for_long() -> None:
    clock = Clock()
    local = exact(clock=clock)
    local.ttl_limit_s = 1
    local.put(name(1), "one", 3, 10)
    clock.now_s = 1
    assert local.get(name(1)) is MISSING


def test_a_flight_lands_where_its_key_was_left_alone() -> None:
    local = exact()
    flight = local.flight(name(1))
    assert local.flight(name(1)) is flight
    local.drop(name(2))
    local.land(flight, "one", 3, 10)
    assert local.get(name(1)) == "one"
    assert local.flying == 0
    assert local.flight(name(1)) is not flight


@pytest.mark.parametrize("change", ["drop", "clear", "put"])
def test_a_flight_that_was_overtaken_lands_nowhere(change: str) -> None:
    local = exact()
    flight = local.flight(name(1))
    if change == "drop":
        local.drop(name(1))
    elif change == "clear":
        local.clear()
    else:
        local.put(name(1), "new", 3, 10)
    assert not local.is_current(flight)
    later = local.flight(name(1))
    assert later is not flight
    local.land(flight, "old", 3, 10)
    assert local.get(name(1)) == ("new" if change == "put" else MISSING)
    local.abandon(flight)
    assert local.is_current(later)


def test_an_abandoned_flight_is_forgotten() -> None:
    local = exact()
    local.abandon(local.flight(name(1)))
    assert local.flying == 0


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [((0, 1), "max_entries"), ((1, 0), "max_bytes"), ((1, 1, -0.1), "jitter"), ((1, 1, 1), "jitter")],
)
def test_bounds_that_make_no_sense_are_refused(arguments: tuple[int, ...], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Local(arguments[0], arguments[1], jitter=arguments[2] if len(arguments) > 2 else 0)


class Oracle:
    """The same in the plainest way: a list of (key, value, bytes, end), the one used last standing last."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.bounds = max_entries, max_bytes
        self.held: list[tuple[Key, int, int, float]] = []

    @property
    def size_bytes(self) -> int:
        return sum(entry[2] for entry in self.held)

    def drop(self, key: Key) -> None:
        self.held = [entry for entry in self.held if entry[0] != key]

    def put(self, key: Key, value: int, size_bytes: int, end: float) -> None:
        self.drop(key)
        size_bytes += ENTRY_BYTES
        if size_bytes * LARGEST_SHARE <= self.bounds[1]:
            self.held.append((key, value, size_bytes, end))
        while len(self.held) > self.bounds[0] or self.size_bytes > self.bounds[1]:
            del self.held[0]

    def get(self, key: Key, now: float) -> object:
        for entry in self.held:
            if entry[0] == key:
                self.drop(key)
                if entry[3] <= now:
                    return MISSING
                self.held.append(entry)
                return entry[1]
        return MISSING


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 12), st.integers(0, 1500), st.integers(1, 8)),
        st.tuples(st.just("get"), st.integers(0, 12)),
        st.tuples(st.just("drop"), st.integers(0, 12)),
        st.tuples(st.just("wait"), st.integers(1, 4)),
        st.tuples(st.just("clear")),
    ),
    max_size=80,
)


@given(steps, st.integers(1, 8), st.integers(1, 12_000))
def test_it_holds_what_a_plain_list_would(steps: list[tuple[object, ...]], max_entries: int, max_bytes: int) -> None:
    clock = Clock()
    local = exact(max_entries, max_bytes, clock)
    oracle = Oracle(max_entries, max_bytes)
    for value, step in enumerate(steps):
        match step:
            case "put", int(number), int(size_bytes), int(ttl_s):
                local.put(name(number), value, size_bytes, ttl_s)
                oracle.put(name(number), value, size_bytes, clock.now_s + ttl_s)
            case "get", int(number):
                assert local.get(name(number)) == oracle.get(name(number), clock.now_s)
            case "drop", int(number):
                local.drop(name(number))
                oracle.drop(name(number))
            case "wait", int(seconds):
                clock.now_s += seconds
            case _:
                local.clear()
                oracle.held.clear()
        assert local.entries == len(oracle.held) <= max_entries
        assert local.size_bytes == oracle.size_bytes <= max_bytes


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
identities = st.tuples(texts, texts, st.text(max_size=8), st.binary(max_size=20))
payloads = st.one_of(st.none(), st.binary(max_size=200))


def opened(payload: bytes | None) -> object:
    return ABSENT if payload is None else payload


@given(identities, payloads)
def test_what_was_sealed_is_unsealed(identity: tuple[str, str, str, bytes], payload: bytes | None) -> None:
    assert unseal(seal(*identity, payload), *identity) == opened(payload)


@given(identities, identities, payloads)
def test_nobody_unseals_what_is_another_s(
    owner: tuple[str, str, str, bytes], other: tuple[str, str, str, bytes], payload: bytes | None
) -> None:
    if owner != other:
        assert unseal(seal(*owner, payload), *other) is None


@pytest.mark.parametrize("place", range(4))
def test_each_part_of_the_identity_counts(place: int) -> None:
    other = list(IDENTITY)
    other[place] = b"other" if place == 3 else "other"
    assert unseal(seal(*IDENTITY, b"payload"), *other) is None


@given(st.binary(max_size=200))
def test_random_bytes_are_nobody_s(data: bytes) -> None:
    assert unseal(data, *IDENTITY) is None


@given(payloads, st.data())
def test_damaged_bytes_never_give_another_payload(payload: bytes | None, data: st.DataObject) -> None:
    sealed = bytearray(seal(*IDENTITY, payload))
    for place in data.draw(st.lists(st.integers(0, len(sealed) - 1), min_size=1, max_size=4)):
        sealed[place] = data.draw(st.integers(0, 255))
    kept = data.draw(st.integers(0, len(sealed)))
    damaged = bytes(sealed[:kept]) + data.draw(st.sampled_from([b"", b"\xc0", bytes(sealed)]))
    assert unseal(damaged, *IDENTITY) in (None, opened(payload))


@pytest.mark.parametrize(
    "data",
    [
        msgspec.msgpack.encode([FORMAT + 1, "1", "assessment", b"tenant", b"key", None, 0]),
        msgspec.msgpack.encode([FORMAT, "1", "assessment", b"tenant", b"key", None, 1]),
        msgspec.msgpack.encode([FORMAT, "1", "assessment", b"tenant", b"key", b"payload", 0]),
        msgspec.msgpack.encode([FORMAT, "1", "assessment", b"tenant", b"key", None, 0, 0]),
        msgspec.msgpack.encode([FORMAT, "1", "assessment", b"tenant", b"key", None]),
        msgspec.msgpack.encode([FORMAT, "1", "assessment", "tenant", b"key", None, 0]),
        msgspec.msgpack.encode({"payload": b"payload"}),
        msgspec.msgpack.encode(None),
        b"",
    ],
)
def test_anything_else_is_not_believed(data: bytes) -> None:
    assert unseal(data, *IDENTITY) is None


@given(st.lists(st.tuples(texts, st.text(max_size=8), st.binary(max_size=20)), max_size=10))
def test_a_message_names_the_keys_it_was_made_of(keys: list[Key]) -> None:
    assert unpack(pack(keys)) == keys


@given(st.binary(max_size=60))
def test_a_message_that_is_none_is_refused_and_nothing_else_happens(message: bytes) -> None:
    try:
        keys = unpack(message)
    except ValueError:
        return
    assert unpack(pack(keys)) == keys
