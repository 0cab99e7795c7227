"""Taking from buckets that all processes share: one script call for whatever one process wants at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from app.settings.rates import Rate

CLOCK = b"""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""
SCRIPT = (
    CLOCK
    + b"""
local per_s, burst, groups, runs = unpack(cmsgpack.unpack(ARGV[1]))
local values = redis.call('MGET', unpack(KEYS))
local owed, changed = {}, {}
for i = 1, #KEYS do
    owed[i] = 0
    if values[i] and #values[i] == 16 then
        local at, before = struct.unpack('<dd', values[i])
        changed[i] = at > now
        owed[i] = math.max(0, before - math.max(0, now - at) * per_s[i] / 1000000)
    end
end
local granted = {}
for r, run in ipairs(runs) do
    local buckets, cost, free = groups[run[1]], run[2], run[3]
    for _, b in ipairs(buckets) do
        local room = burst[b] - math.min(cost, burst[b]) - owed[b] + 1e-6
        free = room < 0 and 0 or math.min(free, math.floor(room / cost) + 1)
    end
    if free > 0 then
        for _, b in ipairs(buckets) do
            owed[b] = owed[b] + free * cost
            changed[b] = true
        end
    end
    granted[r] = free
end
for i = 1, #KEYS do
    if changed[i] then
        local ttl = string.format('%.0f', math.ceil(owed[i] / per_s[i] * 1000) + 1)
        redis.call('SET', KEYS[i], struct.pack('<dd', now, owed[i]), 'PX', ttl)
    end
end
return cmsgpack.pack({granted, owed})
"""
)
"""The generic cell rate algorithm of app.limits.gcra for many buckets at once, by the server's own clock.

KEYS: the buckets. Each holds two doubles: a time in microseconds since 1970, and the requests owed then.
ARGV[1]: msgpack [requests a second of each bucket, burst of each, groups, runs]. A group is the places of the buckets
that one caller's requests are taken from, counted from 1; a run is [group, cost, times]: so many requests that came one
after the other, granted from the first on, each by all buckets of its group or by none. Runs are served in their order.
Answers msgpack [how many of each run were granted, what each bucket owes after all].
A bucket written by a clock that was ahead is written again, so that it drains from now on.
"""

GIVE_BACK = (
    CLOCK
    + b"""
local per_s, counts = unpack(cmsgpack.unpack(ARGV[1]))
for i = 1, #KEYS do
    local value = redis.call('GET', KEYS[i])
    if value and #value == 16 then
        local at, before = struct.unpack('<dd', value)
        local owed = math.max(0, before - math.max(0, now - at) * per_s[i] / 1000000 - counts[i])
        local ttl = string.format('%.0f', math.ceil(owed / per_s[i] * 1000) + 1)
        redis.call('SET', KEYS[i], struct.pack('<dd', now, owed), 'PX', ttl)
    end
end
"""
)
"""Give requests back to buckets that they were taken from, as if they had not been.

ARGV[1]: msgpack [requests a second of each bucket, how many each gets back].
"""

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[list[int], list[float]]).decode


Run = tuple[int, int, int]
"""The place of a group, counted from 1, the cost of one request, and how many of them there are."""


class Outcome(NamedTuple):
    """granted: of each run, how many.  owed: by each bucket, after all."""

    granted: list[int]
    owed: list[float]


def asked(rates: Sequence[Rate], groups: Sequence[Sequence[int]], runs: Sequence[Run]) -> bytes:
    """The script's argument."""
    return _pack(([rate.per_s for rate in rates], [rate.burst for rate in rates], groups, runs))


def returned(rates: Sequence[Rate], counts: Sequence[int]) -> bytes:
    """The argument of GIVE_BACK."""
    return _pack(([rate.per_s for rate in rates], counts))


def answered(reply: bytes) -> Outcome:
    """The script's answer. Raises ValueError for anything else."""
    return Outcome(*_unpack(reply))
