# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""One pass over a JSON body for what decoders let through or answer badly: duplicate keys, deep nesting, NUL in strings, a BOM.

# Design: a byte loop with a stack of open containers and one hash set of (object, key). The set is cleared by a stamp, not by
writing, and hashes carry a random seed, so that nobody can choose keys that collide. Grammar is left to the decoder.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

import json
import os

MAX_DEPTH = 32

cdef enum:
    DEPTH_LIMIT = 32
    FIRST_SLOTS = 512

cdef struct Slot:
    uint32_t stamp                   # of the scan that wrote it
    uint32_t owner                   # serial of the object that the key is in
    uint64_t hash
    const uint8_t* key
    uint32_t length

cdef struct Level:                   # one open container
    bint is_object
    uint32_t serial
    uint32_t index                   # arrays: which member is open
    const uint8_t* key               # objects: the open member's key
    uint32_t key_length
    bint key_next

cdef uint64_t SEED = int.from_bytes(os.urandom(8), "little") | 1
cdef uint64_t MULTIPLIER = 0x9E3779B97F4A7C15


class Refused(Exception):
    """A body that must not be decoded. kind: bom, depth, nul or duplicate; pointer: RFC 6901, where; key: the key's text."""

    def __init__(self, kind, pointer, key=""):
        super().__init__(kind, pointer, key)
        self.kind = kind
        self.pointer = pointer
        self.key = key


cdef class Prescan:
    """A scanner with its own reusable table; one at a time uses it (the GIL is held throughout)."""

    cdef Slot* slots
    cdef uint64_t mask
    cdef uint64_t used
    cdef uint32_t stamp

    def __cinit__(self):
        self.slots = <Slot*>calloc(FIRST_SLOTS, sizeof(Slot))
        if self.slots == NULL:
            raise MemoryError
        self.mask = FIRST_SLOTS - 1

    def __dealloc__(self):
        free(self.slots)

    @property
    def slot_count(self):
        """Size of the table: it grows with the largest body's keys and shrinks back after it."""
        return self.mask + 1

    cdef int _resize(self, uint64_t count) except -1:
        cdef Slot* old = self.slots
        cdef uint64_t i, place, old_count = self.mask + 1
        cdef Slot* fresh = <Slot*>calloc(count, sizeof(Slot))
        if fresh == NULL:
            raise MemoryError
        for i in range(old_count):
            if old[i].stamp == self.stamp:
                place = old[i].hash & (count - 1)
                while fresh[place].stamp:
                    place = (place + 1) & (count - 1)
                fresh[place] = old[i]
        free(old)
        self.slots, self.mask = fresh, count - 1
        return 0

    cdef int _add(self, uint32_t owner, const uint8_t* key, uint32_t length) except -1:
        """1 where the object already has the key."""
        cdef uint64_t h = SEED ^ (<uint64_t>owner * MULTIPLIER), place
        cdef uint32_t i
        cdef Slot* slot
        for i in range(length):
            h = (h ^ key[i]) * MULTIPLIER
            h ^= h >> 29
        h ^= h >> 32
        place = h & self.mask
        while True:
            slot = &self.slots[place]
            if slot.stamp != self.stamp:
                break
            if slot.hash == h and slot.owner == owner and slot.length == length and memcmp(slot.key, key, length) == 0:
                return 1
            place = (place + 1) & self.mask
        slot.stamp, slot.owner, slot.hash, slot.key, slot.length = self.stamp, owner, h, key, length
        self.used += 1
        if self.used * 2 > self.mask:
            self._resize((self.mask + 1) * 2)
        return 0

    def check(self, bytes body not None):
        """Raises Refused for the first thing wrong. A body that is not JSON may pass: the decoder refuses it."""
        cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(body)
        cdef const uint8_t* begin = p
        cdef const uint8_t* end = p + PyBytes_GET_SIZE(body)
        cdef const uint8_t* start
        cdef Level[DEPTH_LIMIT] levels
        cdef int depth = 0
        cdef uint32_t serial = 0
        cdef uint8_t c
        cdef bint escaped, nul
        cdef list kept = []
        if end - p >= 3 and p[0] == 0xEF and p[1] == 0xBB and p[2] == 0xBF:
            raise Refused("bom", "")
        self.stamp += 1
        self.used = 0
        if self.stamp == 0 or self.mask >= 64 * FIRST_SLOTS:
            self.stamp = 1
            free(self.slots)
            self.slots = <Slot*>calloc(FIRST_SLOTS, sizeof(Slot))
            self.mask = FIRST_SLOTS - 1
            if self.slots == NULL:
                self.mask = 0
                raise MemoryError
        while p < end:
            c = p[0]
            if c == 34:                                  # "
                start = p + 1
                escaped = nul = False
                p = start
                while p < end and p[0] != 34:
                    if p[0] == 92:                       # \
                        escaped = True
                        if end - p >= 6 and p[1] == 117 and memcmp(p + 2, b"0000", 4) == 0:
                            nul = True
                        p += 1
                    elif p[0] == 0:
                        nul = True
                    p += 1
                if p >= end:
                    return                               # not closed: the decoder says so
                if depth and levels[depth - 1].is_object and levels[depth - 1].key_next:
                    levels[depth - 1].key, levels[depth - 1].key_length = start, <uint32_t>(p - start)
                    if escaped:
                        self._keep_unescaped(&levels[depth - 1], kept)
                    if nul:
                        raise Refused("nul", self._pointer(levels, depth), "")
                    if self._add(levels[depth - 1].serial, levels[depth - 1].key, levels[depth - 1].key_length):
                        key = levels[depth - 1].key[: levels[depth - 1].key_length]
                        raise Refused("duplicate", self._pointer(levels, depth), _text(key))
                    levels[depth - 1].key_next = False
                elif nul:
                    raise Refused("nul", self._pointer(levels, depth), "")
            elif c == 123 or c == 91:                    # { [
                if depth == DEPTH_LIMIT:
                    raise Refused("depth", self._pointer(levels, depth), "")
                serial += 1
                levels[depth] = Level(c == 123, serial, 0, NULL, 0, c == 123)
                depth += 1
            elif c == 125 or c == 93:                    # } ]
                if depth == 0:
                    return
                depth -= 1
            elif c == 44 and depth:                      # ,
                levels[depth - 1].index += 1
                levels[depth - 1].key_next = levels[depth - 1].is_object
            p += 1

    cdef int _keep_unescaped(self, Level* level, list kept) except -1:
        """Two spellings of one key are one key: compare what the escapes mean. `kept` keeps the bytes alive for the scan."""
        try:
            text = json.loads(b'"' + level.key[: level.key_length] + b'"')
        except ValueError:
            return 0
        plain = text.encode("utf-8", "surrogatepass")
        kept.append(plain)
        level.key = <const uint8_t*>PyBytes_AS_STRING(plain)
        level.key_length = <uint32_t>PyBytes_GET_SIZE(plain)
        return 0

    cdef str _pointer(self, Level* levels, int depth):
        cdef int i
        parts = []
        for i in range(depth):
            if not levels[i].is_object:
                parts.append(str(levels[i].index))
            elif levels[i].key != NULL:
                parts.append(_text(levels[i].key[: levels[i].key_length]).replace("~", "~0").replace("/", "~1"))
        return "".join("/" + part for part in parts)


def _text(bytes key):
    return key.decode("utf-8", "replace")
