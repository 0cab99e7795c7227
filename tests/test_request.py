"""What the head and the body of a request may be, with scopes made by hand."""

from __future__ import annotations

import asyncio
import gzip
import random
import tracemalloc
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.edge.gzipped import SLICE_BYTES
from app.edge.request import (
    GOOD_HOSTS,
    HEADER_LIMIT_BYTES,
    HEADER_LIMIT_COUNT,
    PATH_LIMIT_BYTES,
    Bodies,
    Request,
    _good_hosts,
)
from app.errors import (
    BodyTooLarge,
    HeadersTooLarge,
    RequestMalformed,
    WrongEncoding,
    problem_answer,
)

Pair = tuple[bytes, bytes]
HOST = (b"host", b"kyb.example:8080")
KEY = b"kyb_live_0123456789AB"
MIB = 1 << 20


def made(*headers: Pair, host: Pair | None = HOST, body: Sequence[bytes] = (), **scope: Any) -> Request:
    """A request whose head is not read yet. body: its parts, one a message."""
    parts = list(body)

    async def receive() -> dict[str, Any]:
        assert parts, "read on after the end of the body"
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    return Request(
        {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/v1/assessments",
            "query_string": b"",
            "headers": [host, *headers] if host else list(headers),
            "client": ("198.51.100.7", "50000"),
            **scope,
        },
        receive,
    )


def read(*headers: Pair, **scope: Any) -> Request:
    """A request whose head is read."""
    request = made(*headers, **scope)
    request.read_head()
    return request


def test_a_plain_head_is_read() -> None:
    request = read((b"content-type", b"application/json"), (b"content-length", b"12"), (b"x-request-id", b"mine-1"))
    assert (request.method, request.path, request.id, request.peer) == (
        "POST",
        "/v1/assessments",
        b"mine-1",
        "198.51.100.7",
    )
    assert (request.content_type, request.content_length, request.chunked) == (b"application/json", 12, False)
    nothing = (request.credential, request.forwarded, request.x_forwarded_for, request.content_encoding, request.origin)
    assert nothing == (None,) * 5
    assert (request.body, request.principal, request.route, list(request.fields)) == (b"", None, None, [])


@pytest.mark.parametrize("client", [None, ()])
def test_a_peer_that_the_server_does_not_name_is_nobody(client: Any) -> None:
    assert read(client=client).peer == ""
    request = made()
    del request.scope["client"]
    assert request.peer == ""


@pytest.mark.parametrize(
    "sent",
    [
        [(b"authorization", b"Bearer " + KEY)],
        [(b"authorization", b"bearer " + KEY)],
        [(b"authorization", b"BEARER   " + KEY)],
        [(b"authorization", b"Bearer  " + KEY)],
        [(b"authorization", b"ApiKey " + KEY)],
        [(b"x-api-key", KEY)],
    ],
)
def test_a_key_is_taken_as_it_was_sent(sent: list[Pair]) -> None:
    assert read(*sent).credential == KEY


@pytest.mark.parametrize(
    "sent",
    [
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Bearer\t" + KEY)],
        [(b"authorization", b"Basic a3liOmt5Yg==")],
        [(b"authorization", KEY)],
        [(b"authorization", b"Bearer" + KEY)],
        [(b"authorization", b"ApiKey")],
        [(b"authorization", b"ApiKey " + KEY), (b"x-api-key", KEY)],
        [(b"x-api-key", b"")],
        [(b"authorization", b"Bearer " + KEY), (b"x-api-key", KEY)],
        [(b"authorization", b"Basic a3liOmt5Yg=="), (b"x-api-key", KEY)],
        [(b"authorization", b""), (b"x-api-key", KEY)],
        [(b"authorization", b"Bearer " + KEY), (b"x-api-key", b"")],
        [(b"authorization", b"Bearer " + KEY)] * 2,
        [(b"authorization", b"Bearer " + KEY)] * 3,
        [(b"authorization", b"Bearer " + KEY), (b"authorization", b"")],
        [(b"x-api-key", KEY)] * 2,
        [(b"x-api-key", KEY)] * 3,
    ],
)
def test_what_cannot_be_a_key_is_told_from_none_and_refused_only_later(sent: list[Pair]) -> None:
    assert read(*sent).credential == b""


def test_headers_that_are_lists_are_put_together_in_their_order() -> None:
    request = read(
        (b"x-forwarded-for", b"1.1.1.1"),
        (b"forwarded", b"for=1.1.1.1"),
        (b"if-none-match", b'"a"'),
        (b"x-forwarded-for", b"2.2.2.2, 3.3.3.3"),
        (b"forwarded", b"for=2.2.2.2"),
        (b"if-none-match", b'"b"'),
        (b"content-encoding", b"gzip"),
        (b"content-encoding", b"br"),
        (b"x-forwarded-for", b"4.4.4.4"),
        (b"accept", b"a"),
        (b"accept", b"b"),
    )
    assert request.x_forwarded_for == b"1.1.1.1, 2.2.2.2, 3.3.3.3, 4.4.4.4"
    assert request.forwarded == b"for=1.1.1.1, for=2.2.2.2"
    assert request.if_none_match == b'"a", "b"'
    assert request.content_encoding == b"gzip, br"


@pytest.mark.parametrize(
    "name",
    [
        b"host", b"content-length", b"content-type", b"x-request-id", b"idempotency-key", b"transfer-encoding",
        b"origin",
    ],
)  # fmt: skip
@pytest.mark.parametrize("times", [2, 3])
def test_a_header_that_means_two_things_where_it_stands_twice_is_refused(name: bytes, times: int) -> None:
    host = None if name == b"host" else HOST
    with pytest.raises(RequestMalformed, match=name.decode()):
        read(*[(name, b"1")] * times, host=host)


@pytest.mark.parametrize(
    "host",
    [
        b"kyb", b"KYB.example", b"kyb.example:1", b"kyb.example:65535", b"127.0.0.1:8080", b"[::1]",
        b"[2001:db8::1]:8080",
        b"[::ffff:1.2.3.4]:80", b"a_b-c.d~e", b"k%79b.example", b"kyb.example.", b"a" * 255 + b":65535",
        b"a!$&'()*+,;=b",
    ],
)  # fmt: skip
def test_a_host_may_be_a_name_or_an_address_with_or_without_a_port(host: bytes) -> None:
    for _ in range(2):
        read(host=(b"host", host))


@pytest.mark.parametrize(
    "host",
    [
        b"", b" ", b"kyb example", b"user@kyb", b"kyb/path", b"http://kyb", b"kyb:0", b"kyb:65536", b"kyb:99999",
        b"kyb:",
        b":80", b"kyb:80:80", b"kyb:8a", b"kyb:-1", b"kyb:+80", b"[::1", b"::1", b"[::1]x", b"[1.2.3.4]", b"[::g]",
        b"[]",
        b"[fe80::1%25eth0]", b"kyb?", b"kyb#", b"kyb\\", b"k\xc3\xa9b", b"\xff", b"kyb\x00", b"kyb\t", b"kyb%",
        b"kyb%zz",
        b"kyb,kyb@evil", b'"kyb"', b"<kyb>", b"a" * 256 + b":65535", b"a" * 30_000,
    ],
)  # fmt: skip
def test_an_impossible_host_is_refused_each_time(host: bytes) -> None:
    for _ in range(2):
        with pytest.raises(RequestMalformed, match="Host"):
            read(host=(b"host", host))


@pytest.mark.parametrize("version", ["1.0", "1"])
def test_http_1_0_needs_no_host_but_if_there_is_one_it_must_be_possible(version: str) -> None:
    read(host=None, http_version=version)
    read(host=(b"host", b""), http_version=version)
    with pytest.raises(RequestMalformed, match="Host"):
        read(host=(b"host", b"user@kyb"), http_version=version)
    with pytest.raises(RequestMalformed, match="host"):
        read(HOST, http_version=version)


def test_more_hosts_than_are_remembered_are_judged_alike() -> None:
    for number in range(1000):
        read(host=(b"host", b"kyb-%d.example" % number))
        with pytest.raises(RequestMalformed, match="Host"):
            read(host=(b"host", b"kyb-%d@example" % number))
    assert len(_good_hosts) == GOOD_HOSTS


@pytest.mark.parametrize("version", ["0.9", "1.2", "2", "2.0", "3", ""])
def test_another_version_of_http_is_refused(version: str) -> None:
    with pytest.raises(RequestMalformed, match=r"HTTP/1\.1"):
        read(http_version=version)


@pytest.mark.parametrize(
    "target", ["", "*", "kyb:80", "http://kyb/health", "https://kyb", "health", "?x", "\\health", "%2fhealth"]
)
def test_a_target_that_is_no_path_is_refused(target: str) -> None:
    with pytest.raises(RequestMalformed, match="slash"):
        read(path=target, raw_path=target.encode())


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("/a\0b", b"/a%00b"), ("/a\r\nX: y", b"/a%0d%0aX:%20y"), ("/a\x1b[2J", b"/a%1b[2J"), ("/\x7f", b"/%7f"),
        ("/\x85", b"/%c2%85"), ("/\u2028", b"/%e2%80%a8"), ("/a\ufffd", b"/a%ff"), ("/\ufffd\ufffd", b"/%c3%28"),
    ],
)  # fmt: skip
def test_a_path_with_control_characters_or_no_utf_8_is_refused(path: str, raw: bytes) -> None:
    with pytest.raises(RequestMalformed, match="UTF-8"):
        read(path=path, raw_path=raw)


def test_a_path_may_hold_any_other_text() -> None:
    for path in ("/", "/caf\xe9", "/\u4e1c\u4eac", "/\U0001f4a9", "/a b", "/%zz", "/..;/", "//", "/\u00ad"):
        assert read(path=path, raw_path=path.encode()).path == path


@pytest.mark.parametrize("sign", ["a", "%41", "\u00e9", "%F0%9F%92%A9"])
def test_a_path_over_8_kib_as_sent_is_refused(sign: str) -> None:
    most = (PATH_LIMIT_BYTES - 1) // len(sign.encode())

    def sent(count: int) -> Request:
        raw = ("/" + sign * count).encode()
        shown = {"a": "a", "%41": "A", "\u00e9": "\u00e9"}.get(sign, "\U0001f4a9")
        return read(path="/" + shown * count, raw_path=raw)

    sent(most)
    with pytest.raises(RequestMalformed, match="8,192"):
        sent(most + 1)


def test_a_long_path_is_refused_where_the_server_does_not_say_how_it_was_sent() -> None:
    read(path="/" + "a" * (PATH_LIMIT_BYTES - 1))
    with pytest.raises(RequestMalformed, match="8,192"):
        read(path="/" + "a" * PATH_LIMIT_BYTES)


def test_a_hundred_headers_are_read_and_one_more_is_431() -> None:
    some = [(b"x-%d" % number, b"a") for number in range(HEADER_LIMIT_COUNT - 1)]
    read(*some)
    with pytest.raises(HeadersTooLarge, match="more than 100"):
        read(*some, (b"x-more", b"a"))
    with pytest.raises(HeadersTooLarge):
        read(*[(b"x-same", b"a")] * HEADER_LIMIT_COUNT)


def test_headers_of_32_kib_are_read_and_one_byte_more_is_431() -> None:
    room = HEADER_LIMIT_BYTES - sum(map(len, HOST)) - 1
    read((b"x", b"a" * room))
    for too_much in ([(b"x", b"a" * (room + 1))], [(b"x" * room, b"ab")], [(b"x", b"a" * (room - 1)), (b"x", b"a")]):
        with pytest.raises(HeadersTooLarge, match="32,768"):
            read(*too_much)


@pytest.mark.parametrize("length", [b"", b"-1", b"+1", b"1.0", b"0x1", b"1 ", b"1, 1", b"many", b"\xb2", b"9" * 19])
def test_a_content_length_that_is_no_number_is_refused(length: bytes) -> None:
    with pytest.raises(RequestMalformed, match="Content-Length"):
        read((b"content-length", length))


@pytest.mark.parametrize(
    "coding",
    [
        b"gzip, chunked",
        b"chunked, chunked",
        b"chunked, gzip",
        b"CHUNKED",
        b"xchunked",
        b"identity",
        b"",
        b"\x0bchunked",
        b"chunked;q=1",
    ],
)
def test_a_transfer_encoding_other_than_chunked_is_refused(coding: bytes) -> None:
    with pytest.raises(RequestMalformed, match="Transfer-Encoding"):
        read((b"transfer-encoding", coding))


def test_a_content_length_beside_transfer_encoding_is_refused() -> None:
    assert read((b"transfer-encoding", b"chunked")).chunked
    with pytest.raises(RequestMalformed, match="beside"):
        read((b"transfer-encoding", b"chunked"), (b"content-length", b"3"))


@pytest.mark.parametrize("own_id", [b"", b"a" * 129, b"a b", b"a\r\nb", b"\xff"])
def test_a_refused_head_has_an_id_all_the_same(own_id: bytes) -> None:
    request = made((b"x-request-id", own_id), (b"content-length", b"x"))
    with pytest.raises(RequestMalformed):
        request.read_head()
    assert len(request.id) == 32
    request = made((b"x-request-id", b"mine"), (b"a", b"a" * HEADER_LIMIT_BYTES))
    with pytest.raises(HeadersTooLarge):
        request.read_head()
    assert request.id == b"mine"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"host",
                    b"authorization",
                    b"x-api-key",
                    b"content-length",
                    b"transfer-encoding",
                    b"forwarded",
                    b"accept",
                ]
            ),
            st.sampled_from([b"", b"1", b"a, b", b"chunked", b"kyb:80", b"Bearer x", b"\xff", b"for=1.1.1.1"]),
        ),
        max_size=8,
    ),
    st.sampled_from(["1.1", "1", "2"]),
    st.text(max_size=5),
)
def test_whatever_head_comes_it_is_read_or_refused(headers: list[Pair], version: str, path: str) -> None:
    request = made(*headers, host=None, http_version=version, path="/" + path)
    with suppress(RequestMalformed):
        request.read_head()
        assert len([name for name, _ in headers if name == b"host"]) <= 1
        assert not (request.chunked and request.content_length >= 0)
    assert request.id


def sent_as(body: bytes, *headers: Pair, chunks_of: int = 0) -> Request:
    """A request with this body, announced, or in chunks of so many bytes."""
    if chunks_of:
        parts = [body[place : place + chunks_of] for place in range(0, len(body), chunks_of)] + [b""]
        return read((b"transfer-encoding", b"chunked"), *headers, body=parts)
    return read((b"content-length", b"%d" % len(body)), *headers, body=[body])


def body_of(request: Request, limit_bytes: int = MIB) -> bytes:
    return asyncio.run(Bodies(60).read(request, limit_bytes))


GZIP = (b"content-encoding", b"gzip")
TEXT = b'{"business": {"name": "Acme Trading GmbH", "jurisdiction": "DE"}}' * 50


@pytest.mark.parametrize("chunks_of", [0, 1, 7, 65_536])
@pytest.mark.parametrize("coding", [b"gzip", b"GZIP", b"x-gzip", b" gzip "])
def test_a_body_sent_as_gzip_is_expanded(coding: bytes, chunks_of: int) -> None:
    assert body_of(sent_as(gzip.compress(TEXT), (b"content-encoding", coding), chunks_of=chunks_of)) == TEXT


@pytest.mark.parametrize("coding", [b"identity", b"Identity", b"", b" "])
def test_identity_is_no_encoding(coding: bytes) -> None:
    assert body_of(sent_as(TEXT, (b"content-encoding", coding))) == TEXT


@pytest.mark.parametrize(
    "codings",
    [
        [b"br"],
        [b"deflate"],
        [b"zstd"],
        [b"gzip, gzip"],
        [b"gzip", b"gzip"],
        [b"identity, gzip"],
        [b"gzip,"],
        [b"\xff"],
        [b"gzip;q=1"],
    ],
)
def test_any_other_encoding_and_several_are_415_before_the_body_is_read(codings: list[bytes]) -> None:
    request = read((b"content-length", b"5"), *((b"content-encoding", coding) for coding in codings), body=[])
    with pytest.raises(WrongEncoding) as refused:
        body_of(request)
    status, headers, _ = problem_answer(refused.value, "1")
    assert status == 415
    assert (b"accept-encoding", b"gzip") in headers


def test_where_there_is_no_body_its_encoding_does_not_matter() -> None:
    assert body_of(read(GZIP, body=[])) == b""
    assert body_of(read((b"content-length", b"0"), (b"content-encoding", b"br"), body=[])) == b""


WHOLE = gzip.compress(TEXT)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (TEXT, "not gzip"),
        (b"\x1f", "breaks off"),
        (zlib.compress(TEXT), "not gzip"),
        (WHOLE[:-1], "breaks off"),
        (WHOLE[:-8], "breaks off"),
        (WHOLE[:11], "breaks off"),
        (WHOLE[:-8] + bytes(8), "damaged"),
        (WHOLE[:20] + b"\xff\xff\xff\xff" + WHOLE[24:], "damaged"),
        (WHOLE + b"\0", "behind the end"),
        (WHOLE + b"\n", "behind the end"),
        (WHOLE + WHOLE, "behind the end"),
        (WHOLE + b"GET /health HTTP/1.1\r\n", "behind the end"),
        (WHOLE + b"\0" * 3 * SLICE_BYTES, "behind the end"),
        (gzip.compress(b"") + WHOLE, "behind the end"),
    ],
    ids=range(14),
)
def test_gzip_that_is_broken_cut_or_goes_on_is_400_and_says_so(body: bytes, words: str) -> None:
    for chunks_of in (0, 5000):
        with pytest.raises(RequestMalformed, match=words):
            body_of(sent_as(body, GZIP, chunks_of=chunks_of))


def test_what_goes_on_behind_a_gzip_is_seen_wherever_the_slices_are_cut() -> None:
    # With a file name of the right length the member ends where a slice does.
    start, end = WHOLE[:3] + b"\x08" + WHOLE[4:10], WHOLE[10:]
    exact = start + b"n" * (SLICE_BYTES - len(start) - len(end) - 1) + b"\0" + end
    assert len(exact) == SLICE_BYTES
    assert body_of(sent_as(exact, GZIP)) == TEXT
    with pytest.raises(RequestMalformed, match="behind the end"):
        body_of(sent_as(exact + b"\0", GZIP))


def test_a_gzip_of_nothing_is_an_empty_body() -> None:
    assert body_of(sent_as(gzip.compress(b""), GZIP)) == b""


def test_a_gzip_may_expand_to_the_limit_and_not_one_byte_further() -> None:
    for content in (bytes(MIB), random.Random(1).randbytes(MIB - 1000)):
        assert body_of(sent_as(gzip.compress(content), GZIP)) == content
    for more in (1, 2, SLICE_BYTES, 5 * MIB):
        with pytest.raises(BodyTooLarge, match="1,048,576"):
            body_of(sent_as(gzip.compress(bytes(MIB + more)), GZIP))


def test_a_gzip_over_the_limit_as_it_was_sent_is_413_whatever_is_in_it() -> None:
    body = gzip.compress(random.Random(2).randbytes(MIB + 1))
    for chunks_of in (0, 65_536):
        with pytest.raises(BodyTooLarge):
            body_of(sent_as(body, GZIP, chunks_of=chunks_of))


def test_a_bomb_is_given_up_at_the_limit_and_never_held() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(500)) + packer.flush()
    assert len(bomb) < MIB
    request = sent_as(bomb, GZIP)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        with pytest.raises(BodyTooLarge):
            body_of(request)
        held = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    # The buffer that is written to grows by an eighth at a time; 256 KiB are the event loop's and the test's own.
    assert held < MIB * 9 // 8 + SLICE_BYTES + 256 * 1024


def test_while_a_large_body_is_expanded_others_run() -> None:
    content = random.Random(3).randbytes(7 * MIB // 2).hex().encode()
    request = sent_as(gzip.compress(content, 1), GZIP)

    async def scenario() -> int:
        turns = 0
        task = asyncio.ensure_future(Bodies(60).read(request, 8 * MIB))
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        assert await task == content
        return turns

    # Two or three turns are the reading alone.
    assert asyncio.run(scenario()) > 5


@given(st.binary(max_size=300), st.integers(0, 400), st.integers(0, 9), st.integers(0, 255))
def test_a_gzip_with_one_byte_changed_is_refused_or_says_the_same(
    content: bytes, place: int, level: int, sign: int
) -> None:
    whole = gzip.compress(content, level, mtime=0)
    place %= len(whole)
    changed = whole[:place] + bytes([sign]) + whole[place + 1 :]
    try:
        assert body_of(sent_as(changed, GZIP)) == content
    except RequestMalformed:
        assert changed != whole


@given(st.lists(st.binary(max_size=2000), max_size=8), st.integers(1, 3000), st.integers(0, 9))
def test_any_content_comes_out_as_it_went_in(parts: list[bytes], chunks_of: int, level: int) -> None:
    content = b"".join(part * 50 for part in parts)
    assert body_of(sent_as(gzip.compress(content, level), GZIP, chunks_of=chunks_of)) == content
