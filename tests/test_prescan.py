"""The pre-scan against a plain reading of the same body, and against bodies made to hurt it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.prescan import MAX_DEPTH, Prescan, Refused, has_more_items

SCAN = Prescan()


def verdict(body: bytes | str) -> tuple[str, str, str] | None:
    try:
        SCAN.check(body.encode() if isinstance(body, str) else body)
    except Refused as refused:
        return refused.kind, refused.pointer, refused.key
    return None


class _Duplicate(Exception):
    pass


def has_duplicate(text: str) -> bool:
    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in members}) < len(members):
            raise _Duplicate
        return dict(members)

    try:
        json.loads(text, object_pairs_hook=pairs)
    except _Duplicate:
        return True
    return False


@st.composite
def spelled(draw: st.DrawFn) -> str:
    """A key in one of its spellings, as JSON."""
    plain = draw(st.sampled_from(["a", "b", "ab", 'q"', "\\", "/", "\n", "é", "😀", "\ud83d", "longer than eight", ""]))
    style = draw(st.sampled_from(["ascii", "utf8", "escaped"]))
    if style == "escaped":
        units = plain.encode("utf-16-be", "surrogatepass")
        codes = [f"\\u{units[i]:02x}{units[i + 1]:02X}" for i in range(0, len(units), 2)]
        return '"' + "".join(codes) + '"'
    if style == "utf8" and "\ud83d" not in plain:
        return json.dumps(plain, ensure_ascii=False).replace("/", draw(st.sampled_from(["/", "\\/"])))
    return json.dumps(plain)


def _object(members: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{key} : {value}" for key, value in members) + "}"


VALUES = st.recursive(
    st.sampled_from(["1", "null", '"a"', '"{[,:"', '"\\\\"', '"x\\"y"', "-2.5e3", "true"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: "[" + ", ".join(items) + "]")
        | st.lists(st.tuples(spelled(), inner), max_size=4).map(_object)
    ),
    max_leaves=25,
)


@settings(derandomize=True, max_examples=800)
@given(VALUES)
def test_duplicate_keys_are_found_exactly_where_a_plain_reader_finds_them(text: str) -> None:
    found = verdict(text)
    assert (found is not None and found[0] == "duplicate") == has_duplicate(text)


@settings(derandomize=True, max_examples=800)
@given(st.binary(max_size=60) | st.text('{}[]",:\\u0a1 \x00', max_size=60).map(str.encode))
def test_any_bytes_are_scanned_without_harm(body: bytes) -> None:
    first = verdict(body)
    assert verdict(body) == first


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"a":1,"a":2}', ("duplicate", "/a", "a")),
        ('{"a":1,"\\u0061":2}', ("duplicate", "/a", "a")),
        ('{"\\u0061":1,"a":2}', ("duplicate", "/a", "a")),
        ('{"\\ud83d\\ude00":1,"😀":2}', ("duplicate", "/😀", "😀")),
        ('{"a\\/b":1,"a/b":2}', ("duplicate", "/a~1b", "a/b")),
        ('{"m~n":[0,{"x":1,"x":1}]}', ("duplicate", "/m~0n/1/x", "x")),
        ('[[],{"a":{"b":1,"c":[],"b":3}}]', ("duplicate", "/1/a/b", "b")),
        ('{"a":{"a":1},"b":{"a":1}}', None),
        ('[{"a":1},{"a":1}]', None),
        ('{"a":"\\u0000"}', ("nul", "/a", "")),
        ('{"a":["x","\x00"]}', ("nul", "/a/1", "")),
        ('{"\\u0000":1}', ("nul", "/\x00", "")),
        ('{"a\x00b":1}', ("nul", "/a\x00b", "")),
        ('{"a":"\\\\u0000"}', None),
        ('"\x00"', ("nul", "", "")),
        ("\ufeff{}", ("bom", "", "")),
        ("", None),
        ("\x00", None),
        ('{"a":1', None),
        ('"\\', None),
        ('{"a', None),
        ("]]]]}}}}", None),
    ],
)
def test_what_is_refused_and_where(body: str, expected: tuple[str, str, str] | None) -> None:
    assert verdict(body) == expected


def test_thirty_two_levels_pass_and_one_more_does_not() -> None:
    assert MAX_DEPTH == 32
    assert verdict("[" * 32 + "]" * 32) is None
    assert verdict("[" * 33 + "]" * 33) == ("depth", "/0" * 32, "")
    assert verdict('{"a":' * 33 + "1" + "}" * 33) == ("depth", "/a" * 32, "")


def test_brackets_in_strings_do_not_nest() -> None:
    assert verdict('["' + "[" * 100 + '"]') is None


def test_a_key_late_in_a_wide_object_is_compared_with_the_early_ones() -> None:
    keys = [f'"k{i}":{i}' for i in range(100_000)]
    assert verdict("{" + ",".join(keys) + "}") is None
    assert verdict("{" + ",".join([*keys, '"k7":0']) + "}") == ("duplicate", "/k7", "k7")


def test_a_body_of_many_objects_takes_no_more_room_than_one_of_them() -> None:
    scan = Prescan()
    room = scan.capacity
    scan.check(("[" + ",".join(['{"a":{"b":1,"\\u0063":2}}'] * 40_000) + "]").encode())
    assert scan.capacity == room
    scan.check(("{" + ",".join(f'"k{i}":0' for i in range(100_000)) + "}").encode())
    assert scan.capacity <= 4 * 256


def test_nesting_as_deep_and_wide_as_allowed_keeps_every_level_apart() -> None:
    members = ",".join(f'"k{i}":0' for i in range(256))
    body = f'{{{members},"x":' * 31 + "{}" + "}" * 31
    assert verdict(body) is None
    assert verdict(body.replace('"x":{}', '"x":{},"k3":1')) == ("duplicate", "/x" * 30 + "/k3", "k3")


def test_a_refused_body_leaves_nothing_behind() -> None:
    for _ in range(1000):
        assert verdict('{"a":{"b":1,"b":2}}') is not None
        assert verdict('{"b":1,"a":{"c":1}}') is None


def test_only_bytes_are_scanned() -> None:
    for wrong in (None, "text", bytearray(b"{}")):
        with pytest.raises(TypeError):
            SCAN.check(wrong)  # type: ignore[arg-type]


@given(
    st.lists(st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))),
    st.integers(min_value=1, max_value=6),
)
def test_members_of_the_array_in_the_object_are_counted_as_far_as_needed(members: list[object], limit: int) -> None:
    body = json.dumps({"items": members}).encode()
    assert has_more_items(body, limit) == (len(members) > limit)


def test_only_the_array_right_inside_the_object_counts() -> None:
    assert not has_more_items(b'{"a":1,"b":2,"c":[[1,2,3,4],{"x":[1,2,3]}]}', 2)
    assert not has_more_items(b'{"a":"[1,2,3,4]","b":"\\",\\\\"}', 2)
    for broken in (b"", b"]]]", b'{"a', b'{"a\\', b"{[", b"}{[1,2,3"):
        has_more_items(broken, 2)
