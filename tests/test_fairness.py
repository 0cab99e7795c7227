"""A batch is worked in slices: single requests go on beside it."""

from __future__ import annotations

import json
import select
from concurrent.futures import ThreadPoolExecutor

from service import KEY, Client, Json, Service, Wire, example, named

LEAST = 20
"""Single requests beside a batch. Worked in one piece, it lets through two or three: before, behind, and between."""


def tedious(number: int) -> Json:
    """An item whose many faults take about a millisecond to explain: a thousand of them keep the service busy."""
    return named(f"Wrong {number} Ltd", **{f"total_asets_{fault}": number for fault in range(20)})


def answered(wire: Wire) -> bool:
    """Whether the first byte of an answer has come."""
    ready, _, _ = select.select([wire.socket], [], [], 0)
    return bool(ready)


def test_single_requests_are_answered_while_a_batch_of_a_thousand_is_worked(service: Service) -> None:
    good = example("healthy-manufacturer")
    items = [good if number % 10 == 0 else tedious(number) for number in range(1000)]
    body = json.dumps({"items": items}).encode()
    head = f"POST /v1/assessments/batch HTTP/1.1\r\nHost: kyb\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
    client = Client(service.port)
    done = 0
    with Wire(service.port) as wire:
        # All but the last byte: from then on only the working of the batch is waited for.
        wire.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body[:-1])
        assert client.assess(good, dry_run=True).status == 200
        wire.write(body[-1:])
        while not answered(wire):
            assert client.assess(good, dry_run=True).status == 200
            done += 1
        told = wire.answer().json["items"]
    client.close()
    assert [item["status"] for item in told] == ([201] + [422] * 9) * 100
    assert done >= LEAST


def test_batches_at_once_share_the_service_with_each_other_and_with_single_requests(service: Service) -> None:
    items = [example("listed-manufacturer"), *map(tedious, range(499))]
    clients = [Client(service.port) for _ in range(4)]
    single = Client(service.port)
    with ThreadPoolExecutor(len(clients)) as pool:
        running = [
            pool.submit(client.post, "/v1/assessments/batch", {"items": items}, dry_run=True) for client in clients
        ]
        done = 0
        while not all(one.done() for one in running):
            assert single.assess(items[0], dry_run=True).status == 200
            done += 1
    for one in running:
        assert [item["status"] for item in one.result().json["items"]] == [200] + [422] * 499
    for client in (*clients, single):
        client.close()
    assert done >= LEAST
