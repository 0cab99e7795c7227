"""A Redis Cluster as a whole: whether it serves, whose its slots are, and what becomes of those of a node that dies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from secrets import token_hex

import msgspec
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from app.cache.pool import FAILURES
from app.cache.slots import SLOTS, Address, Span, slot_of, spans
from app.doctor.asking import allowed, ask, connected, fields
from app.doctor.findings import Finding, counted, look, ok, sentence, wrong
from app.doctor.reaching import Unknown
from app.settings.urls import place_of, redis_hosts, redis_url_at

FAILURES_TO_REACH: tuple[type[Exception], ...] = (*FAILURES, Unknown)

Examine = Callable[[str, str], Awaitable[list[Finding]]]
"""All findings of one server. The URL, and a key that it is to take."""


async def examined(url: str, probe: str, examine: Examine) -> list[Finding]:
    """What there is to say of the cluster, then of each node. probe: how the keys begin that are tried."""
    findings: list[Finding] = []
    view: Sequence[Span] = ()
    silent = []
    for address in redis_hosts(url):
        try:
            async with connected(redis_url_at(url, address)) as connection:
                view = await _whole(connection, address, findings)
        except FAILURES_TO_REACH:
            silent.append(address)
        else:
            break
    nodes = list(dict.fromkeys([span.address for span in view] + silent))
    keys = [_key_of(probe, [span for span in view if span.address == node]) for node in nodes]
    urls = [redis_url_at(url, node) for node in nodes]
    each = await asyncio.gather(*map(examine, urls, keys))
    for node, of_node in zip(nodes, each, strict=True):
        place = place_of(node)
        findings += [one if place in one.seen else _at(place, one) for one in of_node]
    return findings


async def _whole(connection: AbstractConnection, address: Address, findings: list[Finding]) -> Sequence[Span]:
    """Who has which slots, as this node tells; nothing where it does not."""
    place = place_of(address)
    try:
        told = await ask(connection, "CLUSTER", "SLOTS")
        info = fields(await ask(connection, "CLUSTER", "INFO"))
    except ResponseError as refused:
        if "cluster support disabled" in str(refused):
            findings.append(
                wrong(
                    "cluster", f"{place} is no node of one", "Leave REDIS_CLUSTER out, or give the address of a node."
                )
            )
        else:
            remedy = "Let the user of REDIS_URL ask +cluster|slots and +cluster|info."
            findings.append(wrong("cluster", f"{place} does not tell of it: {sentence(str(refused))}", remedy))
        return ()
    view = spans(told, address)
    nodes = len({span.address for span in view})
    replicas = len({tuple(replica[:2]) for entry in told for replica in entry[3:]})
    covered = sum(span.last - span.first + 1 for span in view)
    silent = info.get("cluster_slots_fail", 0) + info.get("cluster_slots_pfail", 0)
    seen = f"{counted(nodes, 'node')} with slots, {counted(replicas, 'replica')}"
    figures = {"nodes": nodes, "replicas": replicas, "slots": covered, "slots_silent": silent}
    if info.get("cluster_state") != "ok":
        remedy = "See CLUSTER NODES for who is away; start them, or have a replica take over."
        findings.append(wrong("cluster", f"{seen}: {place} says that it is down", remedy, **figures))
    elif covered < SLOTS:
        remedy = "Give them to a node (CLUSTER ADDSLOTSRANGE, valkey-cli --cluster fix)."
        findings.append(wrong("cluster", f"{seen}: {counted(SLOTS - covered, 'slot')} nobody has", remedy, **figures))
    elif silent:
        remedy = "See CLUSTER NODES for who does not answer; start it, or have a replica take over."
        findings.append(wrong("cluster", f"{seen}: for {counted(silent, 'slot')} nobody answers", remedy, **figures))
    else:
        findings.append(ok("cluster", seen, **figures))
    findings.append(await _coverage(connection))
    return view


async def _coverage(connection: AbstractConnection) -> Finding:
    """What all nodes do where one is away."""
    told = await allowed(connection, "CONFIG", "GET", "cluster-require-full-coverage")
    if told is None:
        return ok("coverage", "not told to this user")
    if told and told[-1] == b"yes":
        remedy = "Set cluster-require-full-coverage no: the service does without the keys of one node."
        return look("coverage", "where nobody answers for one slot, all nodes refuse all keys", remedy)
    return ok("coverage", "where one node is away, the others go on")


def _key_of(probe: str, had: Sequence[Span]) -> str:
    """A key that nobody has, in one of the slots, or anywhere where there are none."""
    if not had:
        return f"{probe}{token_hex(8)}"
    keys = (f"{probe}{token_hex(8)}:{number}" for number in count())
    return next(key for key in keys if any(first <= slot_of(key.encode()) <= last for first, last, _ in had))


def _at(place: str, finding: Finding) -> Finding:
    return msgspec.structs.replace(finding, seen=f"{place}: {finding.seen}")
