"""A body that is no JSON, is nested too deeply or gives a key twice is refused and leaves nothing behind."""

from __future__ import annotations

import json

import pytest
from problems import faults, problem
from service import Client, named

LIST = b'{"business":{"name":"A","jurisdiction":"DE","aliases":%s}}'

# Bodies that are no JSON.


@pytest.mark.parametrize("path", ["/v1/assessments", "/v1/assessments/batch"])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b" \r\n\t", "empty"),
        (b"{", "complete"),
        (b'{"business": ', "complete"),
        (b"{'business': 1}", "not JSON"),
        (b"business=1", "not JSON"),
        (b"<xml/>", "not JSON"),
        (b'{"business": {}} trailing', "not JSON"),
        (b'{"business": {"name": "A",}}', "not JSON"),
        (b'{"business": {}} {"business": {}}', "not JSON"),
        (b'{"business": {"name": "\xff\xfe", "jurisdiction": "DE"}}', "UTF-8"),
        (b'{"business": {"name": "\xed\xa0\x80", "jurisdiction": "DE"}}', "UTF-8"),
        (b'{"business": {"name": "\xc0\x80", "jurisdiction": "DE"}}', "UTF-8"),
        (b'\xef\xbb\xbf{"business": {"name": "A", "jurisdiction": "DE"}}', "BOM"),
        ('{"business": {}}'.encode("utf-16"), "BOM"),
        (b'{"business": {"name": "\\ud800", "jurisdiction": "DE"}}', ""),
        (b'{"business": {"name": "A\nB", "jurisdiction": "DE"}}', "not JSON"),
        (b'{"business": {"employees": NaN}}', "NaN"),
        (b'{"business": {"employees": Infinity}}', "Infinity"),
        (b'{"business": {"employees": -Infinity}}', ""),
        (b'{"business": {"employees": 01}}', "not JSON"),
        (b'{"business": {"employees": 0x1}}', "not JSON"),
        (b'{"business": {"employees": 1e}}', "not JSON"),
        (b"[" * 100_000, ""),
        (b'{"a":' * 100_000, ""),
        (b"[" * 5000 + b"]" * 5000, "nested"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_a_body_that_is_no_json_is_400(caller: Client, path: str, body: bytes, words: str) -> None:
    assert words in problem(caller.post(path, body), 400, "unreadable-body")["detail"]


def test_a_null_byte_between_tokens_is_no_json(caller: Client) -> None:
    problem(caller.assess(b'{"business":\0{"name":"A","jurisdiction":"DE"}}'), 400, "unreadable-body")


@pytest.mark.parametrize("depth", [33, 34, 100, 1100, 50_000])
def test_nesting_beyond_32_is_400(caller: Client, depth: int) -> None:
    lists = b"[" * (depth - 2) + b"]" * (depth - 2)
    assert "nested" in problem(caller.assess(LIST % lists), 400, "unreadable-body")["detail"]


def test_nesting_of_32_is_read_and_wrong_for_another_reason(caller: Client) -> None:
    assert list(faults(caller.assess(LIST % (b"[" * 30 + b"]" * 30)))) == ["/business/aliases/0"]


def test_brackets_in_a_text_are_no_nesting(caller: Client) -> None:
    assert caller.assess(named("[{" * 200), dry_run=True).status == 200


def test_an_item_nested_too_deeply_fails_alone(caller: Client) -> None:
    body = b'{"items":[%s,%s]}' % (LIST % (b"[" * 60 + b"]" * 60), json.dumps(named("Right Ltd")).encode())
    told = caller.post("/v1/assessments/batch", body, dry_run=True).json["items"]
    assert [item["status"] for item in told] == [400, 200]
    assert "nested" in told[0]["problem"]["detail"]


# Duplicate keys.


@pytest.mark.parametrize(
    ("body", "pointer", "key"),
    [
        (b'{"business":{"name":"A","name":"B","jurisdiction":"DE"}}', "/business/name", "name"),
        (b'{"business":{"name":"A","n\\u0061me":"B","jurisdiction":"DE"}}', "/business/name", "name"),
        (b'{"business":{"\\u006eame":"A","\\u006Eame":"B","jurisdiction":"DE"}}', "/business/name", "name"),
        (
            b'{"business":{"name":"A","jurisdiction":"DE"},"business":{"name":"B","jurisdiction":"DE"}}',
            "/business",
            "business",
        ),
        (b'{"business":{"name":"A","jurisdiction":"DE"},"business":null}', "/business", "business"),
        (
            b'{"business":{"name":"A","jurisdiction":"DE"},"ownership":{"owners":[{"name":"x"},{"name":"y","name":"y"}]}}',
            "/ownership/owners/1/name",
            "name",
        ),
        (b'{"business":{"name":"A","jurisdiction":"DE"},"x":{"deep":[{"k":1,"k":2}]}}', "/x/deep/0/k", "k"),
        (b'{"business":{"name":"A","jurisdiction":"DE","":1,"":2}}', "/business/", ""),
        (b'{"a/b~c":1,"a\\/b~c":2}', "/a~1b~0c", "a/b~c"),
    ],
)
def test_a_key_given_twice_is_refused_by_name(caller: Client, body: bytes, pointer: str, key: str) -> None:
    found = faults(caller.assess(body))
    assert list(found) == [pointer]
    assert f'"{key}"' in found[pointer]
    assert "twice" in found[pointer]


@pytest.mark.parametrize("keys", [2, 10, 200, 255])
def test_a_key_given_twice_is_found_among_many(caller: Client, keys: int) -> None:
    members = b",".join(b'"k%d":0' % number for number in range(keys))
    body = b'{"business":{"name":"A","jurisdiction":"DE"},"x":{%s,"k0":1}}' % members
    assert list(faults(caller.assess(body))) == ["/x/k0"]


def test_equal_keys_in_different_objects_are_no_duplicates(caller: Client) -> None:
    profile = {**named("A"), "ownership": {"owners": [{"name": "x"}, {"name": "x"}], "directors": [{"name": "x"}]}}
    assert caller.assess(profile, dry_run=True).status == 200


def test_a_key_of_the_batch_given_twice_refuses_the_batch(caller: Client) -> None:
    item = json.dumps(named("A")).encode()
    for body in (b'{"items":[%s],"items":[%s]}' % (item, item), b'{"items":[],"items":[%s]}' % item):
        assert "items" in faults(caller.post("/v1/assessments/batch", body), "invalid-batch")["/items"]
