# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""One pass over a JSON body for what decoders let through or answer badly: duplicate keys, deep nesting, NUL, a BOM.

# Design: a byte loop with a stack of open containers and one hash set of (object, key). An object's keys leave the set
when it closes, last in first out, so the set stays small however long the body is; hashes carry a random seed, so that
nobody can choose keys that collide; and an object with more keys than any type has fields is left to the decoder, which
refuses it. The loop has no bound to check: the NUL that ends every bytes object stops it
(PERF: benchmarks/test_core.py::test_prescan).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

import os

__all__ = ["MAX_DEPTH", "Prescan", "Refused", "has_more_items"]

MAX_DEPTH = 32

cdef enum:
    DEPTH_LIMIT = 32
    FIRST_SLOTS = 256
    MAX_KEYS = 256                   # of one object; those above are not compared

cdef struct Slot:
    const uint8_t* key               # NULL = empty
    uint64_t hash
    uint32_t length
    uint32_t owner                   # serial of the object that the key is in

cdef struct Level:                   # one open container
    bint is_object
    uint32_t serial
    uint32_t index                   # arrays: which member is open
    const uint8_t* key               # objects: the open member's key
    uint32_t key_length
    bint key_next
    uint32_t keys                    # how many of its keys are in the set

cdef struct Unescaped:               # room for keys written with escapes: as long as the rest of the body, so enough
    uint8_t* begin
    uint8_t* end

cdef uint64_t SEED = int.from_bytes(os.urandom(8), "little") | 1
cdef uint64_t MULTIPLIER = 0x9E3779B97F4A7C15

# Bytes that end a run: inside a string, and outside of one. What follows a backslash, as the byte it stands for.
cdef uint8_t[256] IN_STRING, OUTSIDE, SHORT_ESCAPES
IN_STRING[0] = IN_STRING[34] = IN_STRING[92] = 1
for _byte in (0, 34, 44, 91, 93, 123, 125):
    OUTSIDE[_byte] = 1
for _byte, _meaning in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    SHORT_ESCAPES[_byte] = _meaning


cdef inline uint64_t _hash(uint32_t owner, const uint8_t* key, uint32_t length) noexcept:
    """Eight bytes a step; the last step reads the last bytes, whatever of them was read before."""
    cdef uint64_t h = SEED ^ (<uint64_t>owner << 32) ^ length, word = 0
    cdef uint32_t first, last
    cdef const uint8_t* end = key + length
    while end - key > 8:
        memcpy(&word, key, 8)
        h = (h ^ word) * MULTIPLIER
        h ^= h >> 32
        key += 8
    if length >= 8:
        memcpy(&word, end - 8, 8)
    elif length >= 4:
        memcpy(&first, key, 4)
        memcpy(&last, end - 4, 4)
        word = first | <uint64_t>last << 32
    elif length:
        word = key[0] | <uint64_t>key[length // 2] << 8 | <uint64_t>key[length - 1] << 16
    h = (h ^ word) * MULTIPLIER
    h = (h ^ (h >> 29)) * MULTIPLIER
    return h ^ (h >> 32)


class Refused(Exception):
    """A body that must not be decoded.

    kind: bom, depth, nul or duplicate.  pointer: where (RFC 6901).  key: the text of a duplicate key.
    """

    def __init__(self, kind, pointer, key=""):
        super().__init__(kind, pointer, key)
        self.kind = kind
        self.pointer = pointer
        self.key = key


@cython.final
cdef class Prescan:
    """A scanner with its own reusable table; one at a time uses it (the GIL is held throughout)."""

    cdef Slot* slots
    cdef uint32_t* log               # places of the keys in the set, in the order they came
    cdef uint32_t mask
    cdef uint32_t used

    def __cinit__(self):
        self._allocate(FIRST_SLOTS)

    def __dealloc__(self):
        free(self.slots)
        free(self.log)

    cdef int _allocate(self, uint32_t count) except -1:
        cdef Slot* slots = <Slot*>calloc(count, sizeof(Slot))
        cdef uint32_t* log = <uint32_t*>calloc(count, sizeof(uint32_t))
        if slots == NULL or log == NULL:
            free(slots)
            free(log)
            raise MemoryError
        self.slots, self.log, self.mask, self.used = slots, log, count - 1, 0
        return 0

    cdef int _grow(self) except -1:
        cdef Slot* old_slots = self.slots
        cdef uint32_t* old_log = self.log
        cdef uint32_t i, count = self.used
        self._allocate(2 * (self.mask + 1))
        for i in range(count):
            self._place(&old_slots[old_log[i]])
        free(old_slots)
        free(old_log)
        return 0

    cdef void _place(self, const Slot* entry) noexcept:
        cdef uint32_t place = <uint32_t>entry.hash & self.mask
        while self.slots[place].key != NULL:
            place = (place + 1) & self.mask
        self.slots[place] = entry[0]
        self.log[self.used] = place
        self.used += 1

    cdef void _forget(self, uint32_t count) noexcept:
        """Drop the keys that came last; those before keep their places, since nothing ever moved past a later one."""
        while count:
            self.used -= 1
            self.slots[self.log[self.used]].key = NULL
            count -= 1

    cdef int _add(self, Level* level) except -1:
        """1 where the object already has the key."""
        cdef uint64_t h = _hash(level.serial, level.key, level.key_length)
        cdef uint32_t place = <uint32_t>h & self.mask
        cdef Slot* slot = &self.slots[place]
        cdef Slot entry
        while slot.key != NULL:
            if slot.hash == h and slot.owner == level.serial and slot.length == level.key_length:
                if memcmp(slot.key, level.key, level.key_length) == 0:
                    return 1
            place = (place + 1) & self.mask
            slot = &self.slots[place]
        if level.keys < MAX_KEYS:
            entry = Slot(level.key, h, level.key_length, level.serial)
            self._place(&entry)
            level.keys += 1
            if self.used * 2 > self.mask:
                self._grow()
        return 0

    @property
    def capacity(self):
        """How many keys the table has room for; it grows with what is open at once, not with the body."""
        return self.mask + 1

    def check(self, bytes body not None):
        """Raises Refused for the first thing wrong. A body that is not JSON may pass: the decoder refuses it."""
        cdef Unescaped unescaped
        unescaped.begin = unescaped.end = NULL
        try:
            self._scan(body, &unescaped)
        finally:
            self._forget(self.used)
            free(unescaped.begin)

    cdef int _refuse(self, str kind, Level* levels, int depth, bytes key=b"") except -1:
        """The keys are forgotten before any Python code runs, which could scan again."""
        cdef str pointer = _pointer(levels, depth), text = _text(key)
        self._forget(self.used)
        raise Refused(kind, pointer, text)

    cdef int _scan(self, bytes body, Unescaped* unescaped) except -1:
        cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(body)
        cdef const uint8_t* end = p + PyBytes_GET_SIZE(body)
        cdef const uint8_t* start
        cdef Level[DEPTH_LIMIT] levels
        cdef Level* top = NULL
        cdef int depth = 0
        cdef uint32_t serial = 0
        cdef uint8_t c
        cdef bint escaped, nul
        if end - p >= 3 and p[0] == 0xEF and p[1] == 0xBB and p[2] == 0xBF:
            raise Refused("bom", "")
        while True:
            while not OUTSIDE[p[0]]:
                p += 1
            c = p[0]
            if c == 34:                                  # "
                p += 1
                start = p
                escaped = nul = False
                while True:
                    while not IN_STRING[p[0]]:
                        p += 1
                    if p[0] == 34:
                        break
                    if p >= end:
                        return 0                         # not closed: the decoder says so
                    if p[0] == 0:
                        nul = True
                    else:                                # a backslash and what it escapes
                        escaped = True
                        nul = nul or (end - p >= 6 and memcmp(p, b"\\u0000", 6) == 0)
                        p += 1
                        if p >= end:
                            return 0
                    p += 1
                if depth and top.key_next:
                    top.key, top.key_length, top.key_next = start, <uint32_t>(p - start), False
                    if escaped:
                        _unescape(top, unescaped, end - start)
                    if nul:
                        self._refuse("nul", levels, depth)
                    if self._add(top):
                        self._refuse("duplicate", levels, depth, top.key[: top.key_length])
                elif nul:
                    self._refuse("nul", levels, depth)
            elif c == 44:                                # ,
                if depth:
                    top.index += 1
                    top.key_next = top.is_object
            elif c == 123 or c == 91:                    # { [
                if depth == DEPTH_LIMIT:
                    self._refuse("depth", levels, depth)
                top = &levels[depth]
                serial += 1
                depth += 1
                top.is_object = top.key_next = c == 123
                top.serial, top.index, top.key, top.keys = serial, 0, NULL, 0
            elif c != 0:                                 # } ]
                if depth == 0:
                    return 0
                self._forget(top.keys)
                depth -= 1
                top = &levels[depth - 1] if depth else NULL
            elif p >= end:
                return 0
            p += 1


cdef int _unescape(Level* level, Unescaped* room, Py_ssize_t most) except -1:
    """Two spellings of one key are one key: replace it by what its escapes mean. One that means nothing stays as it is.

    most: bytes of the body from the key on.
    """
    cdef const uint8_t* p = level.key
    cdef const uint8_t* end = p + level.key_length
    cdef uint8_t* out
    cdef uint8_t c
    cdef int32_t code, low
    if room.begin == NULL:
        room.begin = room.end = <uint8_t*>malloc(most)
        if room.begin == NULL:
            raise MemoryError
    out = room.end
    while p < end:
        c = p[0]
        p += 1
        if c != 92:                                      # backslash
            out[0] = c
            out += 1
            continue
        c = p[0]                                         # what is escaped: the scan has seen that it is there
        p += 1
        if c != 117:                                     # u
            out[0] = SHORT_ESCAPES[c]
            if out[0] == 0:
                return 0
            out += 1
            continue
        code = _four_digits(p, end)
        if code < 0:
            return 0
        p += 4
        if 0xD800 <= code < 0xDC00 and end - p >= 6 and p[0] == 92 and p[1] == 117:
            low = _four_digits(p + 2, end)
            if 0xDC00 <= low < 0xE000:
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
                p += 6
        out = _put_utf8(out, code)
    level.key, level.key_length = room.end, <uint32_t>(out - room.end)
    room.end = out
    return 0


cdef int32_t _four_digits(const uint8_t* p, const uint8_t* end) noexcept:
    """The number that four hexadecimal digits write; -1 where they are not."""
    cdef int32_t value = 0
    cdef int i
    cdef uint8_t c
    if end - p < 4:
        return -1
    for i in range(4):
        c = p[i]
        if 48 <= c <= 57:
            value = value * 16 + c - 48
        elif 97 <= (c | 32) <= 102:
            value = value * 16 + (c | 32) - 87
        else:
            return -1
    return value


cdef uint8_t* _put_utf8(uint8_t* out, int32_t code) noexcept:
    """Write a code point, never longer than its escape; half a surrogate pair is written like any other."""
    if code < 0x80:
        out[0] = <uint8_t>code
        return out + 1
    if code < 0x800:
        out[0], out[1] = <uint8_t>(0xC0 | code >> 6), <uint8_t>(0x80 | code & 63)
        return out + 2
    if code < 0x10000:
        out[0], out[1], out[2] = (
            <uint8_t>(0xE0 | code >> 12), <uint8_t>(0x80 | code >> 6 & 63), <uint8_t>(0x80 | code & 63)
        )
        return out + 3
    out[0], out[1], out[2], out[3] = (
        <uint8_t>(0xF0 | code >> 18), <uint8_t>(0x80 | code >> 12 & 63), <uint8_t>(0x80 | code >> 6 & 63),
        <uint8_t>(0x80 | code & 63),
    )
    return out + 4


cdef str _pointer(Level* levels, int depth):
    """RFC 6901, to what is open."""
    cdef int i
    cdef list parts = []
    for i in range(depth):
        if not levels[i].is_object:
            parts.append(str(levels[i].index))
        elif levels[i].key != NULL:
            parts.append(_text(levels[i].key[: levels[i].key_length]).replace("~", "~0").replace("/", "~1"))
    return "".join(["/" + part for part in parts])


cdef str _text(bytes key):
    return key.decode("utf-8", "replace")


def has_more_items(bytes body not None, Py_ssize_t limit):
    """Whether an array right inside the outermost object has more than `limit` members.

    Reads no further than it must.
    """
    cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(body)
    cdef const uint8_t* end = p + PyBytes_GET_SIZE(body)
    cdef int depth = 0
    cdef Py_ssize_t commas = 0
    cdef bint in_array = False
    while p < end:
        if p[0] == 34:                                   # ": past the string
            p += 1
            while p < end and p[0] != 34:
                p += 2 if p[0] == 92 else 1
        elif p[0] == 91 or p[0] == 123:                  # [ {
            depth += 1
            if depth == 2:
                in_array, commas = p[0] == 91, 0
        elif p[0] == 93 or p[0] == 125:                  # ] }
            depth -= 1
        elif p[0] == 44 and depth == 2 and in_array:     # ,
            commas += 1
            if commas >= limit:
                return True
        p += 1
    return False
