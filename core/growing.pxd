# Arrays that grow while an index is built.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy


cdef struct Grown:
    uint8_t* data
    size_t length                    # bytes used
    size_t room


cdef inline int append(Grown* to, const void* items, size_t n_bytes) except -1 nogil:
    """Raises MemoryError."""
    cdef size_t room
    cdef uint8_t* data
    if to.length + n_bytes > to.room:
        room = 2 * (to.length + n_bytes) + 64
        data = <uint8_t*>realloc(to.data, room)
        if data == NULL:
            raise MemoryError
        to.data, to.room = data, room
    if n_bytes:
        memcpy(to.data + to.length, items, n_bytes)
    to.length += n_bytes
    return 0


cdef inline int append_32(Grown* to, uint32_t value) except -1 nogil:
    return append(to, &value, 4)


cdef inline int append_64(Grown* to, uint64_t value) except -1 nogil:
    return append(to, &value, 8)


cdef struct Places:                  # an open-addressing set of numbered things, by the hash of each, kept by the owner
    uint32_t* slots                  # number + 1, 0 = empty
    uint32_t mask
    uint32_t used


cdef inline int make_room(Places* places, const uint64_t* hashes) except -1 nogil:
    """At most half full, whatever is added next. hashes: of everything in it, by number."""
    cdef uint32_t size, i, at
    cdef uint32_t* slots
    if places.slots != NULL and 2 * (places.used + 1) <= places.mask:
        return 0
    size = 2 * (places.mask + 1) if places.slots != NULL else 1024
    slots = <uint32_t*>calloc(size, sizeof(uint32_t))
    if slots == NULL:
        raise MemoryError
    for i in range(places.used):
        at = <uint32_t>hashes[i] & (size - 1)
        while slots[at]:
            at = (at + 1) & (size - 1)
        slots[at] = i + 1
    free(places.slots)
    places.slots, places.mask = slots, size - 1
    return 0
