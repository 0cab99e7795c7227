"""Taking from buckets that all processes share: one script call for whatever one process wants at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from app.settings.rates import Rate

SCRIPT = b"""
local time = redis.call('TIME')
local now = (time[1] - 1767225600) * 1000000 + time[2]
local interval, burst, takes = unpack(cmsgpack.unpack(ARGV[1]))
local full = redis.call('MGET', unpack(KEYS))
local before = {}
for i = 1, #KEYS do
    before[i] = math.max(tonumber(full[i] or 0), now)
    full[i] = before[i]
end
local granted = {}
for t = 1, #takes do
    local cost, times, buckets = takes[t][1], takes[t][2], takes[t][3]
    local free = times
    for _, b in ipairs(buckets) do
        local room = now + (burst[b] - math.min(cost, burst[b])) * interval[b] - full[b]
        if room < 0 then
            free = 0
        else
            free = math.min(free, math.floor(room / (cost * interval[b])) + 1)
        end
    end
    for _, b in ipairs(buckets) do full[b] = full[b] + free * cost * interval[b] end
    granted[t] = free
end
local left = {}
for i = 1, #KEYS do
    if full[i] > before[i] then
        redis.call('SET', KEYS[i], string.format('%.17g', full[i]), 'PX', math.ceil((full[i] - now) / 1000) + 1)
    end
    left[i] = math.ceil(full[i] - now)
end
return {granted, left}
"""
"""The generic cell rate algorithm of app.limits.gcra for many buckets at once, by the server's clock.

KEYS: the buckets, each holding the time at which it is full again, in microseconds since 2026-01-01 UTC so that a
double keeps a hundredth of one.  ARGV[1]: msgpack [interval_us of each bucket, burst of each, takes], a take being
[cost, times, places of its buckets, counted from 1]: so many requests that want the same, granted from the first on,
each of all its buckets or of none.  Answers how many of each take were granted, and for each bucket the microseconds
until it is full.
"""
