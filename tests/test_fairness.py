"""A batch is worked in slices: single requests go on beside it."""

from __future__ import annotations

import json
import select
from concurrent.futures import ThreadPoolExecutor

import pytest
from service import Client, Service, Wire, example

BATCHES = 3


def answered(wire: Wire) -> bool:
    """Whether the first byte of an answer has come."""
    ready, _, _ = select.select([wire.socket], [], [], 0)
    return bool(ready)


@pytest.mark.parametrize("query", ["", "?dry_run=true", "?dry_run=true&explain=full"])
def test_single_requests_are_answered_while_a_batch_of_a_thousand_is_worked(service: Service, query: str) -> None:
    body = json.dumps({"items": [example("healthy-manufacturer")] * 1000}).encode()
    head = f"POST /v1/assessments/batch{query} HTTP/1.1\r\nHost: kyb\r\nContent-Type: application/json\r\n"
    profile = json.dumps(example("young-ecommerce")).encode()
    client = Client(service.port)
    interleaved = []
    for _ in range(BATCHES):
        with Wire(service.port) as wire:
            # All but the last byte: from then on only the working of the batch is waited for.
            wire.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body[:-1])
            assert client.assess(profile, dry_run=True).status == 200
            wire.write(body[-1:])
            done = 0
            while not answered(wire):
                assert client.assess(profile, dry_run=True).status == 200
                done += 1
            assert [item["status"] // 100 for item in wire.answer().json["items"]] == [2] * 1000
            interleaved.append(done)
    client.close()
    # Unsliced, at most the one request that came before the batch and the one behind it would be seen.
    assert max(interleaved) >= 5, interleaved


def test_batches_that_run_at_once_all_end_and_let_single_requests_through(service: Service) -> None:
    items = [example("listed-manufacturer")] * 500
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
        assert all([item["status"] for item in one.result().json["items"]] == [200] * 500 for one in running)
    assert done >= 5
    for client in (*clients, single):
        client.close()
