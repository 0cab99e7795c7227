"""A list is fetched whole or not at all, whatever the other side does; a failure says what happened and what to do."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import shutil
import ssl
import subprocess
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar, cast

import aiohttp
import pytest
from publisher import Answer, Publisher, Request, conditional, endless, publishing, reset, say, silence

from app.watchlists.download import Fetched, Validators, fetch
from app.watchlists.formats.registry import FORMATS
from app.watchlists.sources import SOURCES, Source
from app.watchlists.transfer import FetchFailed, FetchLimits, Validator, public_url, transfer

LIMITS = FetchLimits(file_bytes=1_000_000, retry_pause_s=0)
CHUNKED = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
Scenario = Callable[[Publisher], Awaitable[None]]


def source(publisher: Publisher, *paths: str) -> Source:
    return Source("test-list", "A list", tuple(publisher.url + path for path in paths or ("/list.csv",)), "ofac-csv")


def run(scenario: Scenario) -> None:
    async def published() -> None:
        async with publishing() as publisher:
            await scenario(publisher)

    asyncio.run(published())


def failing(
    folder: Path, answers: Answer | list[Answer], limits: FetchLimits = LIMITS
) -> tuple[FetchFailed, list[Request]]:
    """The failure of fetching one file that is answered so, and what was asked. Nothing may be left behind."""
    asked: list[Request] = []

    async def scenario() -> FetchFailed:
        async with publishing() as publisher:
            publisher.answers["/list.csv"] = answers
            with pytest.raises(FetchFailed) as caught:
                await fetch(source(publisher), folder, None, limits)
            asked.extend(publisher.asked)
            assert caught.value.url == publisher.url + "/list.csv"
            return caught.value

    failure = asyncio.run(scenario())
    assert list(folder.iterdir()) == []
    return failure, asked


def fetched(folder: Path, answers: Answer | list[Answer], limits: FetchLimits = LIMITS) -> Fetched:
    """What fetching one file brings that is answered so."""

    async def scenario() -> Fetched:
        async with publishing() as publisher:
            publisher.answers["/list.csv"] = answers
            return await fetch(source(publisher), folder, None, limits)

    return asyncio.run(scenario())


def test_a_file_comes_whole_with_its_digest_and_validators(tmp_path: Path) -> None:
    made = fetched(tmp_path, say(body=b"1,2\n", ETag='"v1"', Last_Modified="Fri, 27 Feb 2026 00:00:10 GMT"))
    file = made.files[0]
    assert file.path.read_bytes() == b"1,2\n"
    assert (file.sha256, file.bytes) == (hashlib.sha256(b"1,2\n").hexdigest(), 4)
    assert made.validators == {file.url: Validator('"v1"', "Fri, 27 Feb 2026 00:00:10 GMT")}
    assert (made.unchanged, made.modified) == (False, "2026-02-27")
    assert made.paths == [tmp_path / f"test-list-{made.sha256[:16]}" / "list.csv"]
    assert list(tmp_path.iterdir()) == [file.path.parent]


def test_the_same_content_takes_the_same_place_whole_again(tmp_path: Path) -> None:
    first = fetched(tmp_path, say(body=b"1,2\n"))
    first.paths[0].write_bytes(b"damaged")
    assert fetched(tmp_path, say(body=b"1,2\n")).paths == first.paths
    assert first.paths[0].read_bytes() == b"1,2\n"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_list_that_has_not_changed_is_not_brought_again(tmp_path: Path) -> None:
    async def scenario(publisher: Publisher) -> None:
        publisher.answers = {"/a": conditional(b"1\n", '"a1"'), "/b": conditional(b"2\n", '"b1"')}
        listed = source(publisher, "/a", "/b")
        first = await fetch(listed, tmp_path, None, LIMITS)
        again = await fetch(listed, tmp_path, first.validators, LIMITS)
        assert again == Fetched("test-list", unchanged=True)

    run(scenario)
    assert len(list(tmp_path.iterdir())) == 1


def test_where_one_file_has_changed_all_are_brought(tmp_path: Path) -> None:
    async def scenario(publisher: Publisher) -> None:
        publisher.answers = {"/a": conditional(b"1\n", '"a1"'), "/b": conditional(b"2\n", '"b1"')}
        listed = source(publisher, "/a", "/b")
        first = await fetch(listed, tmp_path, None, LIMITS)
        publisher.answers["/b"] = conditional(b"3\n", '"b2"')
        again = await fetch(listed, tmp_path, first.validators, LIMITS)
        assert [path.read_bytes() for path in again.paths] == [b"1\n", b"3\n"]
        assert again.sha256 != first.sha256
        assert [validator.etag for validator in again.validators.values()] == ['"a1"', '"b2"']

    run(scenario)


def test_the_last_change_is_asked_for_where_there_is_no_etag(tmp_path: Path) -> None:
    async def scenario(publisher: Publisher) -> None:
        listed = source(publisher)
        publisher.answers["/list.csv"] = say(304)
        known: Validators = {listed.urls[0]: Validator(None, "Fri, 27 Feb 2026 00:00:10 GMT")}
        assert (await fetch(listed, tmp_path, known, LIMITS)).unchanged
        assert publisher.asked[0].headers["if-modified-since"] == "Fri, 27 Feb 2026 00:00:10 GMT"

    run(scenario)


def test_not_modified_without_having_been_asked_is_a_failure(tmp_path: Path) -> None:
    failure, _ = failing(tmp_path, say(304))
    assert failure.what == "the server answered 304 where 200 is due"


def test_files_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    async def scenario(publisher: Publisher) -> None:
        publisher.answers = {f"/{place}/content?token=x": say(body=place.encode()) for place in "ab"}
        made = await fetch(source(publisher, *publisher.answers), tmp_path, None, LIMITS)
        assert [path.name for path in made.paths] == ["content", "2-content"]
        assert [path.read_bytes() for path in made.paths] == [b"a", b"b"]

    run(scenario)


def test_where_a_later_file_fails_none_is_left(tmp_path: Path) -> None:
    async def scenario(publisher: Publisher) -> None:
        publisher.answers = {"/a": say(body=b"1\n"), "/b": say(404)}
        with pytest.raises(FetchFailed, match="the server answered 404 where 200 is due; the list has moved"):
            await fetch(source(publisher, "/a", "/b"), tmp_path, None, LIMITS)

    run(scenario)
    assert list(tmp_path.iterdir()) == []


def test_a_fetch_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(publisher: Publisher) -> None:
        asked = asyncio.Event()

        async def nothing(request: Request, writer: asyncio.StreamWriter) -> None:
            asked.set()
            await silence(request, writer)

        publisher.answers["/list.csv"] = nothing
        task = asyncio.ensure_future(fetch(source(publisher), tmp_path, None, LIMITS))
        await asked.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    run(scenario)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", [say(503), say(500), reset], ids=["503", "500", "reset"])
def test_what_may_be_over_is_tried_once_more(tmp_path: Path, fault: Answer) -> None:
    assert fetched(tmp_path, [fault, say(body=b"1\n")]).paths[0].read_bytes() == b"1\n"


def test_a_body_that_breaks_off_is_tried_once_more_from_its_start(tmp_path: Path) -> None:
    cut = say(body=b"1,2", Content_Length="100")
    assert fetched(tmp_path, [cut, say(body=b"1,2,3\n")]).paths[0].read_bytes() == b"1,2,3\n"


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (say(503), "the server answered 503, twice"),
        (say(body=b"1,2", Content_Length="100"), "the connection ended before the file did, twice"),
        (say(body=gzip.compress(b"1,2\n" * 99)[:-9], Content_Encoding="gzip"), "the compressed body ends before"),
        (reset, "the connection was cut before an answer came"),
    ],
    ids=["503", "truncated", "truncated gzip", "reset"],
)
def test_what_fails_twice_has_failed(tmp_path: Path, fault: Answer, what: str) -> None:
    failure, asked = failing(tmp_path, fault)
    assert failure.what.startswith(what)
    assert failure.what.endswith(", twice")
    assert len(asked) == 2


def test_a_port_where_nobody_listens_is_told(tmp_path: Path) -> None:
    async def closed() -> None:
        async with publishing() as publisher:
            listed = source(publisher)
        with pytest.raises(FetchFailed, match=r"no connection \(.*\), twice; check the address, proxy and firewall"):
            await fetch(listed, tmp_path, None, LIMITS)

    asyncio.run(closed())


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (say(401), "the server answered 401 where 200 is due"),
        (say(404), "the server answered 404 where 200 is due"),
        (say(429), "the server answered 429 where 200 is due"),
        (say(204), "the server answered 204 where 200 is due"),
        (say(206, b"1"), "the server answered 206 where 200 is due"),
        (say(body=b"<html>", Content_Type="text/html; charset=utf-8"), "what comes is text/html, not a list"),
        (say(body=b"PK", Content_Type="application/zip"), "what comes is application/zip, not a list"),
        (say(body=b"1", Content_Encoding="br"), "the body is in the encoding 'br', which was not asked for"),
        (say(body=b"1,2\n", Content_Encoding="gzip"), "the body is damaged gzip"),
        (say(), "the file is empty"),
        (say(body=gzip.compress(b""), Content_Encoding="gzip"), "the file is empty"),
        (say(302), "302 without an address to go to"),
        (say(302, Location="ftp://127.0.0.1/list"), "ftp://127.0.0.1/list is no address of HTTP"),
        (say(302, Location="http://lists.example/list?key=1"), "not encrypted to http://lists.example/list?..."),
        (say(302, Location="/list.csv"), "more than 3 redirects"),
        (say(Content_Length="2000000"), "the file has more than 1,000,000 bytes"),
    ],
)  # fmt: skip
def test_an_answer_that_makes_no_sense_is_refused_at_once(tmp_path: Path, fault: Answer, what: str) -> None:
    failure, asked = failing(tmp_path, fault)
    assert failure.what.startswith(what)
    assert failure.advice
    assert str(failure) == f"{failure.url}: {failure.what}; {failure.advice}"
    assert len(asked) == (4 if "redirects" in what else 1)


def test_redirects_are_followed_up_to_three_times(tmp_path: Path) -> None:
    async def scenario(publisher: Publisher) -> None:
        publisher.answers = {
            "/list.csv": say(301, Location="/b"),
            "/b": say(302, Location=publisher.url + "/c"),
            "/c": say(307, Location="d"),
            "/d": say(body=b"1\n"),
        }
        made = await fetch(source(publisher), tmp_path, None, LIMITS)
        assert made.paths[0].read_bytes() == b"1\n"
        assert made.files[0].url == publisher.url + "/list.csv"

    run(scenario)


def test_a_redirect_from_outside_into_this_machine_is_refused(tmp_path: Path) -> None:
    class Answered:
        status = 302
        headers: ClassVar = {"Location": "https://127.0.0.1:8443/internal?key=1"}

        def close(self) -> None:
            pass

    class Session:
        async def get(self, url: str, **_: object) -> Answered:
            return Answered()

    session = cast(aiohttp.ClientSession, Session())
    with pytest.raises(
        FetchFailed, match=r"redirected into this machine \(https://127\.0\.0\.1:8443/internal\?\.\.\.\)"
    ):
        asyncio.run(transfer(session, "https://lists.example/list.csv", tmp_path / "list.csv", None, LIMITS))


def test_a_list_is_not_fetched_without_encryption_from_another_machine(tmp_path: Path) -> None:
    plain = Source("test-list", "A list", ("http://lists.example/list.csv",), "ofac-csv")
    with pytest.raises(FetchFailed, match="not encrypted; set an address that begins with https://"):
        asyncio.run(fetch(plain, tmp_path))


@pytest.mark.parametrize(
    "answer",
    [
        endless(b"10000\r\n" + b"1" * 65536 + b"\r\n", CHUNKED + "\r\n"),
        endless(b"1" * 65536, "HTTP/1.1 200 OK\r\n\r\n"),
        endless(b"1" * 65536, "HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n"),
    ],
    ids=["chunked", "until it closes", "by its length"],
)
def test_a_body_that_is_too_large_is_stopped(tmp_path: Path, answer: Answer) -> None:
    failure, asked = failing(tmp_path, answer)
    assert failure.what == "the file has more than 1,000,000 bytes"
    assert len(asked) == 1


def test_a_small_body_that_unpacks_to_an_enormous_one_is_stopped_before_it_is_in_memory(tmp_path: Path) -> None:
    bomb = say(body=gzip.compress(b"0" * 50_000_000), Content_Encoding="gzip")
    tracemalloc.start()
    try:
        failure, _ = failing(tmp_path, bomb)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert failure.what == "the file has more than 1,000,000 bytes"


def test_a_body_longer_than_it_says_is_refused(tmp_path: Path) -> None:
    failure, _ = failing(tmp_path, say(body=b"1,2\n3,4\n", Content_Length="4"))
    assert failure.what.startswith("the answer is not HTTP as it should be (400, message=")


def test_a_compressed_body_is_unpacked_whole(tmp_path: Path) -> None:
    text = b"".join(b"%d,2\n" % i for i in range(60_000))
    parts = gzip.compress(text[:300_000]) + gzip.compress(text[300_000:])
    assert fetched(tmp_path, say(body=parts, Content_Encoding="gzip")).paths[0].read_bytes() == text


def test_a_server_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    failure, asked = failing(tmp_path, silence, FetchLimits(stall_s=0.05, retry_pause_s=0))
    assert failure.what.startswith("nothing came for 0.05 s")
    assert len(asked) == 1


def test_a_body_that_drips_is_given_up_when_all_its_time_is_over(tmp_path: Path) -> None:
    async def drip(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"1")
            await writer.drain()
            await asyncio.sleep(0.01)

    failure, _ = failing(tmp_path, drip, FetchLimits(stall_s=5, total_s=0.3))
    assert failure.what == "the list did not come within 0.3 s"


def test_a_url_is_shown_without_what_may_be_secret() -> None:
    assert public_url("https://user:pass@lists.example:8443/a/b?token=x#y") == "https://lists.example:8443/a/b?..."
    assert public_url("https://lists.example/a") == "https://lists.example/a"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for this machine, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, which makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "certificate.pem", folder / "key.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(made)]
    subprocess.run(["openssl", *words.split(), *names], check=True, capture_output=True)
    return made, key


def secured(certificate: tuple[Path, Path], scenario: Scenario) -> None:
    async def published() -> None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*certificate)
        async with publishing(tls) as publisher:
            await scenario(publisher)

    asyncio.run(published())


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    async def scenario(publisher: Publisher) -> None:
        publisher.answers["/list.csv"] = say(body=b"1\n")
        with pytest.raises(FetchFailed, match="the server's certificate was not accepted"):
            await fetch(source(publisher), tmp_path, None, LIMITS)
        assert publisher.asked == []

    secured(certificate, scenario)
    assert list(tmp_path.iterdir()) == []


def test_a_certificate_that_is_trusted_is_accepted_and_encryption_is_not_left(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    async def scenario(publisher: Publisher) -> None:
        trusting = ssl.create_default_context(cafile=str(certificate[0]))
        publisher.answers = {"/list.csv": say(302, Location="/b"), "/b": say(body=b"1\n")}
        made = await fetch(source(publisher), tmp_path, None, LIMITS, trusting)
        assert made.paths[0].read_bytes() == b"1\n"
        publisher.answers["/b"] = say(302, Location="http://lists.example/list")
        with pytest.raises(FetchFailed, match=r"not encrypted to http://lists\.example/list"):
            await fetch(source(publisher), tmp_path, None, LIMITS, trusting)

    secured(certificate, scenario)


def test_the_sources_known_are_encrypted_and_of_known_formats() -> None:
    assert list(SOURCES)[:3] == ["ofac-sdn", "un-consolidated", "eu-consolidated"]
    for name, made in SOURCES.items():
        assert made.name == name
        assert made.format in FORMATS
        assert made.minimum > 1
        assert all(url.startswith("https://") for url in made.urls)
