"""Redis or Valkey: whether it answers, takes writes, has room, and what was slow there."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, ResponseError

from app.cache.pool import FAILURES
from app.doctor import cluster
from app.doctor.asking import CONNECT_S, allowed, ask, connected, fields
from app.doctor.findings import (
    Finding,
    by_share,
    bytes_text,
    counted,
    judged,
    look,
    ok,
    sentence,
    share_text,
    time_text,
    wrong,
)
from app.doctor.reaching import Unknown
from app.settings import Settings
from app.settings.budget import BudgetTooSmall, redis_share
from app.settings.urls import redis_hosts, redis_url_at

PINGS = 5
SLOW_SHOWN = 5
HIT_RATE = 0.5
READS = 1000
"""Fewer reads say little of how often something is found."""
PROBE = "kyb:doctor:"
PROBE_MS = 1000

Info = Mapping[str, Any]


async def examined(settings: Settings) -> list[Finding]:
    """All findings. Where a server does not answer, that is its last."""
    url = settings.redis.url
    if url is None:
        return [_none(settings)]
    if settings.redis.cluster:
        return await cluster.examined(url, PROBE, partial(_of_server, settings))
    return await _of_server(settings, url, f"{PROBE}{token_hex(8)}")


async def _of_server(settings: Settings, url: str, probe: str) -> list[Finding]:
    """What there is to say of one. probe: a key that it is to take."""
    findings: list[Finding] = []
    place = place_of(url)
    began = time.monotonic()
    try:
        async with connected(url) as connection:
            findings.append(ok("connection", f"{place}, connected in {time_text(time.monotonic() - began)}"))
            await _examine(connection, settings, findings, probe)
    except Unknown as unknown:
        findings.append(wrong("connection", f"{place}: {unknown}", "Check REDIS_URL, and the name servers."))
    except FAILURES as error:
        findings.append(_away(place, error, bool(findings)))
    return findings


async def clock_s(url: str) -> float:
    """Unix time as the first server has it that answers. Raises one of FAILURES, and Unknown."""
    *others, last = [redis_url_at(url, address) for address in redis_hosts(url)] or [url]
    for other in others:
        with suppress(*FAILURES, Unknown):
            return await _clock_s(other)
    return await _clock_s(last)


async def _clock_s(url: str) -> float:
    async with connected(url) as connection:
        seconds, micros = await ask(connection, "TIME")
        return int(seconds) + int(micros) / 1e6


def place_of(url: str) -> str:
    """Host, port and number of a Redis: what may be shown of its URL."""
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}"


def _none(settings: Settings) -> Finding:
    replicas = settings.scaling.max_replicas or 1
    if replicas > 1:
        return look(
            "connection",
            f"REDIS_URL names none, and there may be {replicas} replicas: rates hold for each of them alone, and what "
            "one has changed, others learn late",
            "Give them one Redis in REDIS_URL.",
        )
    return ok("connection", "REDIS_URL names none: this service does without")


def _away(place: str, error: Exception, connected: bool) -> Finding:
    if isinstance(error, AuthenticationError) or "AUTH" in str(error):
        return wrong(
            "connection", f"{place} does not let this user in", "Check user and password of REDIS_URL, and its ACL."
        )
    if "max number of clients" in str(error):
        remedy = "Raise maxclients, or lower REDIS_POOL_SIZE or MAX_REPLICAS."
        return wrong("clients", f"{place} has no connection left", remedy)
    if isinstance(error, ResponseError):
        return wrong("connection", f"{place} refuses: {sentence(str(error))}", "Check the ACL of REDIS_URL's user.")
    if isinstance(error, TimeoutError):
        what = "does not answer any more" if connected else f"does not answer within {time_text(CONNECT_S)}"
        return wrong(
            "connection",
            f"{place} {what}",
            "Check that it runs and is not busy with one long command, and the network between.",
        )
    # The driver's words may repeat the whole address; the system's do not.
    cause = error if isinstance(error, OSError) else error.__cause__ or error.__context__
    number = (cause.errno if isinstance(cause, OSError) else None) or 0
    if number > 0 and not isinstance(cause, ConnectionResetError | BrokenPipeError):
        words = sentence(os.strerror(number))
        return wrong("connection", f"{place} cannot be reached: {words}", "Check REDIS_URL, and that it runs.")
    return wrong(
        "connection",
        f"{place} ended the connection{'' if connected else ' as soon as it was made'}",
        "See its log: it may have no connection left (maxclients), want TLS (rediss://), or be about to stop.",
    )


async def _examine(connection: AbstractConnection, settings: Settings, findings: list[Finding], probe: str) -> None:
    findings.append(await _latency(connection))
    told = await allowed(connection, "INFO")
    if told is None:
        findings.append(
            look("server", "INFO is not allowed to this user", "Allow it +info, +dbsize, +time and +slowlog.")
        )
    else:
        info = fields(told)
        findings += [*_server(info, settings), _clients(info, settings), *_memory(info), _evictions(info), _hits(info)]
        findings.append(_keys(info, await allowed(connection, "DBSIZE")))
    findings.append(await _writes(connection, probe))
    findings += await _slow_log(connection)


async def _latency(connection: AbstractConnection) -> Finding:
    times = []
    for _ in range(PINGS):
        began = time.monotonic()
        await ask(connection, "PING")
        times.append(time.monotonic() - began)
    median_s = statistics.median(times)
    return judged(
        "latency",
        "look" if median_s >= 0.01 else "ok",
        f"an answer takes {time_text(median_s)}, at most {time_text(max(times))}",
        "Bring service and Redis nearer to each other; look at the slow log and the load of either.",
        median_s=median_s,
        most_s=max(times),
    )


def _server(info: Info, settings: Settings) -> list[Finding]:
    version = info.get("valkey_version") or info.get("redis_version", "of unknown version")
    name = "Valkey" if "valkey_version" in info else "Redis"
    role = "primary" if info.get("role") == "master" else "replica"
    up_s = info.get("uptime_in_seconds", 0)
    seen = f"{name} {version}, {role}, up for {time_text(up_s)}"
    figures = {"version": str(version), "role": role, "up_s": up_s}
    if info.get("loading"):
        return [wrong("server", f"{seen}: it is still loading its data", "Wait until it has.", **figures)]
    if info.get("cluster_enabled") and not settings.redis.cluster:
        remedy = "Give REDIS_CLUSTER=true."
        return [
            wrong("server", f"{seen}: it is a node of a cluster, and refuses the keys of others", remedy, **figures)
        ]
    if role == "replica":
        link = info.get("master_link_status", "unknown")
        remedy = "Give the address of the primary in REDIS_URL."
        return [wrong("server", f"{seen}, its link to the primary is {link}: it takes no writes", remedy, **figures)]
    if up_s < 300:
        return [
            look("server", f"{seen}: it was restarted, and what it held may be gone", "See in its log why.", **figures)
        ]
    return [ok("server", seen, **figures)]


def _clients(info: Info, settings: Settings) -> Finding:
    used, most = info.get("connected_clients", 0), info.get("maxclients", 0)
    refused = info.get("rejected_connections", 0)
    replicas = settings.scaling.max_replicas or 1
    fleet = settings.redis.pool_size * replicas
    seen = (
        f"{used:,} of maxclients {most:,}; the fleet may hold {fleet:,} (REDIS_POOL_SIZE {settings.redis.pool_size:,}, "
        f"{counted(replicas, 'replica')}); {counted(refused, 'connection')} refused since its start"
    )
    figures = {"used": used, "most": most, "fleet": fleet, "rejected": refused}
    try:
        redis_share(settings)
    except BudgetTooSmall as small:
        return wrong("clients", str(small), "Give one of these.", **figures)
    if most and fleet > most:
        return wrong("clients", seen, "Raise maxclients, or lower REDIS_POOL_SIZE or MAX_REPLICAS.", **figures)
    verdict = by_share(used, most, 0.8, 0.95) if most else "ok"
    if refused and verdict == "ok":
        verdict = "look"
    return judged("clients", verdict, seen, "Raise maxclients, or lower REDIS_POOL_SIZE or MAX_REPLICAS.", **figures)


def _memory(info: Info) -> list[Finding]:
    used, most = info.get("used_memory", 0), info.get("maxmemory", 0)
    policy = str(info.get("maxmemory_policy", "unknown"))
    figures = {"used_bytes": used, "most_bytes": most, "policy": policy}
    keeps = policy == "noeviction"
    if not most:
        machine = info.get("total_system_memory", 0)
        seen = f"{bytes_text(used)} in use, without a limit" + (
            f" on a machine of {bytes_text(machine)}" if machine else ""
        )
        remedy = "Set maxmemory to what it may take, and maxmemory-policy allkeys-lru."
        return [look("memory", seen, remedy, **figures)]
    seen = f"{bytes_text(used)} of maxmemory {bytes_text(most)} in use ({share_text(used, most)}), policy {policy}"
    if keeps:
        verdict = by_share(used, most, 0.8, 1.0)
        if verdict == "ok":
            remedy = "Set maxmemory-policy allkeys-lru: full, it would refuse writes instead of making room."
            return [look("memory", seen, remedy, **figures)]
        remedy = (
            "Set maxmemory-policy allkeys-lru, so that it makes room instead of refusing writes, or raise maxmemory."
        )
        return [judged("memory", verdict, seen, remedy, **figures)]
    # Being full is how a cache works that makes room.
    return [ok("memory", seen, **figures)]


def _evictions(info: Info) -> Finding:
    evicted, expired = info.get("evicted_keys", 0), info.get("expired_keys", 0)
    share = evicted / (evicted + expired) if evicted + expired else 0.0
    return judged(
        "evictions",
        "look" if evicted and share >= 0.1 else "ok",
        f"{counted(evicted, 'key')} evicted before their time and {expired:,} at its end, since its start",
        "Raise maxmemory, or lower CACHE_TTL.",
        evicted=evicted,
        expired=expired,
    )


def _hits(info: Info) -> Finding:
    hits, misses = info.get("keyspace_hits", 0), info.get("keyspace_misses", 0)
    reads = hits + misses
    return judged(
        "hit rate",
        "look" if reads >= READS and hits < HIT_RATE * reads else "ok",
        f"{share_text(hits, reads)} of {counted(reads, 'read')} found something" if reads else "nothing was read yet",
        "Where evictions are many, raise maxmemory; else few businesses are asked for again, and a cache gains little.",
        hits=hits,
        misses=misses,
    )


def _keys(info: Info, count: int | None) -> Finding:
    others = {name: value for name, value in info.items() if name.startswith("db") and name[2:].isdigit()}
    seen = "not told" if count is None else f"{counted(count, 'key')} in this database"
    if len(others) > 1:
        seen += f"; {counted(len(others), 'database')} in use on this server"
    return ok("keys", seen, keys=count, databases={name: str(value) for name, value in others.items()})


async def _writes(connection: AbstractConnection, probe: str) -> Finding:
    """Whether it takes a write: a key of our own that ends after a second."""
    try:
        await ask(connection, "SET", probe, "1", "PX", PROBE_MS)
    except ResponseError as error:
        words = str(error)
        if "maxmemory" in words:
            remedy = "Raise maxmemory, or set maxmemory-policy allkeys-lru, so that it makes room."
        elif "MOVED" in words:
            remedy = "It is a node of a cluster, and the key another's: give REDIS_CLUSTER=true."
        elif "READONLY" in words or "read only" in words:
            remedy = "Give the address of the primary in REDIS_URL."
        elif "permission" in words.lower():
            remedy = "Let the user of REDIS_URL write all keys that begin with kyb."
        else:
            remedy = "See its log; where saving to disk fails, free some or set stop-writes-on-bgsave-error no."
        return wrong("writes", f"refused: {sentence(words)}", remedy)
    return ok("writes", "it takes them")


async def _slow_log(connection: AbstractConnection) -> list[Finding]:
    entries = await allowed(connection, "SLOWLOG", "GET", SLOW_SHOWN)
    if entries is None:
        return [look("slow log", "SLOWLOG is not allowed to this user", "Allow it +slowlog.")]
    since = await allowed(connection, "CONFIG", "GET", "slowlog-log-slower-than")
    from_s = int(since[1]) / 1e6 if since and len(since) == 2 and int(since[1]) >= 0 else None
    count = await allowed(connection, "SLOWLOG", "LEN") or 0
    limit = f" (slower than {time_text(from_s)})" if from_s is not None else ""
    if not entries:
        return [ok("slow log", f"empty{limit}", entries=0)]
    now_s = time.time()
    findings = [ok("slow log", f"{counted(count, 'command')}{limit}, the newest:", entries=count)]
    for entry in entries:
        _, at, took_us, words = entry[:4]
        # Its arguments are keys and values: nobody's to be shown.
        name = _command(words)
        ago_s = max(0.0, now_s - int(at))
        took_s = int(took_us) / 1e6
        findings.append(
            judged(
                "slow command",
                "look" if ago_s < 3600 else "ok",
                f"{name} took {time_text(took_s)}, {time_text(ago_s)} ago",
                "Find out who sends it: the service itself sends nothing that takes Redis this long.",
                command=name,
                took_s=took_s,
                ago_s=ago_s,
            )
        )
    return findings


def _command(words: Any) -> str:
    first = words[0] if isinstance(words, list) and words else b"?"
    text = first.decode("ascii", "replace") if isinstance(first, bytes) else str(first)
    return text.upper() if text.isalpha() and len(text) <= 20 else "?"
