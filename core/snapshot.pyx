# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Opening the bytes of a name index: used where they lie, after every check that keeps a reader inside them.

# Design: everything in a snapshot follows from its entities, and these can be read whatever engine wrote it: they stand
# at a place that no layout moves, in a form that only grows. Another engine's snapshot is compiled again from them.
"""

from libc.string cimport memcpy

import zlib
from hashlib import sha256
from importlib.metadata import version

from msgspec import MsgspecError

from core.entities import restored
from core.words import WORDS as TABLE

__all__ = ["ENGINE", "SnapshotDamaged", "SnapshotOutdated", "entities_of"]

cdef uint64_t MAGIC = int.from_bytes(b"kybnames", "little")
# Raised whenever the same text could be read as other words, or be found under other keys.
_READING = 1
cdef uint64_t STAMP = int.from_bytes(
    sha256(f"{_READING} {TABLE.sha256} anyascii {version('anyascii')}".encode()).digest()[:8], "little"
)
cdef size_t COMMON_BYTES = sizeof(Header) - (N_SECTIONS - ENTITIES - 1) * sizeof(Span)

# Engines of one number, 31 bits, read each other's snapshots.
ENGINE = int.from_bytes(sha256(f"{LAYOUT} {STAMP}".encode()).digest()[:4], "little") & 0x7FFFFFFF


class SnapshotDamaged(ValueError):
    """Bytes that are no whole snapshot: says which check failed."""


class SnapshotOutdated(ValueError):
    """A whole snapshot that another version of the engine, or of its table of words, made. It has to be built again,
    and can be from its own entities."""


cdef uint64_t stamp():
    return STAMP


cdef uint64_t magic():
    return MAGIC


cdef size_t item_bytes(int section) noexcept nogil:
    if section == LETTERS or section == ENTITIES:
        return 1
    if section == WORDS:
        return sizeof(ListedWord)
    if section == POSTINGS:
        return sizeof(Posting)
    if section == NAMES:
        return sizeof(ListedName)
    if section == IDENTIFIERS:
        return sizeof(ListedIdentifier)
    if section == ENTITY_STARTS:
        return 8
    if section == COUNTRIES:
        return 2
    return 4


cdef int _read_header(object buffer, const uint8_t* data, size_t size, Header* header) except -1:
    """The header of a whole snapshot of any layout; spans that it does not have stay as they are."""
    cdef uint32_t checksum
    if size < COMMON_BYTES:
        raise SnapshotDamaged(f"a snapshot has at least {COMMON_BYTES:,} bytes, this one {size:,}")
    memcpy(header, data, min(size, sizeof(Header)))
    if header.magic != MAGIC:
        raise SnapshotDamaged("it does not begin as a snapshot of this machine's byte order does")
    if header.size != size:
        raise SnapshotDamaged(f"it was written with {header.size:,} bytes and has {size:,}")
    checksum, header.checksum = header.checksum, 0
    whole = memoryview(buffer)
    if zlib.crc32(whole[COMMON_BYTES:], zlib.crc32((<char*>header)[:COMMON_BYTES])) != checksum:
        raise SnapshotDamaged("its checksum is not that of its bytes")
    return 0


cdef int open_view(object buffer, const uint8_t* data, size_t size, View* view) except -1:
    """Fills the view. buffer: the same bytes as an object.  Raises SnapshotDamaged and SnapshotOutdated."""
    cdef Header header
    _read_header(buffer, data, size, &header)
    if header.layout != LAYOUT:
        raise SnapshotOutdated(f"it has layout {header.layout}; this engine reads layout {LAYOUT}: build it again")
    if header.stamp != STAMP:
        raise SnapshotOutdated("it was built with another table of words or another transliteration: build it again")
    if size < sizeof(Header):
        raise SnapshotDamaged(f"a snapshot has at least {sizeof(Header):,} bytes, this one {size:,}")
    fault = _place(&header, data, size, view)
    if fault:
        raise SnapshotDamaged(fault)
    return 0


def entities_of(snapshot):
    """The entities in a snapshot, whatever engine made it, in their order.

    Raises SnapshotDamaged, and SnapshotOutdated where another engine kept an entity in a way that is not read here.
    """
    cdef Header header
    cdef const uint8_t[::1] data = snapshot
    cdef int section
    _read_header(snapshot, &data[0] if data.shape[0] else NULL, data.shape[0], &header)
    for section in (ENTITY_STARTS, ENTITIES):
        if not _is_inside(&header.spans[section], section, header.size):
            raise SnapshotDamaged(f"its section {section} lies outside of it")
    if header.spans[ENTITY_STARTS].count == 0:
        raise SnapshotDamaged(f"its section {ENTITY_STARTS} is empty")
    whole = memoryview(snapshot).cast("B")
    first, last = header.spans[ENTITY_STARTS].offset, header.spans[ENTITIES].offset
    return _entities(
        whole[first:first + 8 * header.spans[ENTITY_STARTS].count].cast("Q"),
        whole[last:last + header.spans[ENTITIES].count],
        header.layout == LAYOUT and header.stamp == STAMP,
    )


def _entities(starts, entities, is_own):
    cdef Py_ssize_t i
    for i in range(len(starts) - 1):
        if not starts[i] <= starts[i + 1] <= len(entities):
            raise SnapshotDamaged(f"its entity {i} lies outside of it")
        try:
            entity = restored(entities[starts[i]:starts[i + 1]])
        except (MsgspecError, UnicodeDecodeError) as error:
            kind = SnapshotDamaged if is_own else SnapshotOutdated
            raise kind(f"its entity {i} cannot be read: {error}") from error
        yield entity


cdef bint _is_inside(const Span* span, int section, uint64_t size) noexcept nogil:
    cdef uint64_t offset = span.offset, count = span.count
    if offset % 8 or offset > size:
        return False
    return count <= (size - offset) // item_bytes(section) and count <= 0xFFFFFFFFU


cdef str _place(const Header* header, const uint8_t* data, size_t size, View* view):
    """Pointers into the bytes; what is wrong, or None."""
    cdef const uint8_t* at[N_SECTIONS]
    cdef uint64_t[N_SECTIONS] count
    cdef int i
    for i in range(N_SECTIONS):
        count[i] = header.spans[i].count
        if not _is_inside(&header.spans[i], i, size):
            return f"its section {i} lies outside of it"
        at[i] = data + header.spans[i].offset
    for i in (POSTING_STARTS, NEAR_STARTS, SKELETON_STARTS, FORM_STARTS, KEY_STARTS, NAME_STARTS, ENTITY_STARTS,
              COUNTRY_STARTS, BIRTH_STARTS, IDENTIFIER_STARTS, ID_STARTS):
        if count[i] == 0:
            return f"its section {i} is empty"
    view.n_words, view.n_forms = <uint32_t>count[WORDS], <uint32_t>count[FORM_STARTS] - 1
    view.n_entities, view.n_names = <uint32_t>count[ENTITY_STARTS] - 1, <uint32_t>count[NAMES]
    if (
        count[POSTING_STARTS] != count[WORDS] + 1 or count[NAME_STARTS] != count[FORM_STARTS]
        or count[COUNTRY_STARTS] != count[ENTITY_STARTS] or count[BIRTH_STARTS] != count[ENTITY_STARTS]
        or header.n_names != count[NAMES]
    ):
        return "its sections do not fit each other"
    view.letters = at[LETTERS]
    view.words = <const ListedWord*>at[WORDS]
    view.posting_starts, view.postings = <const uint32_t*>at[POSTING_STARTS], <const Posting*>at[POSTINGS]
    view.form_starts, view.form_words = <const uint32_t*>at[FORM_STARTS], <const uint32_t*>at[FORM_WORDS]
    view.name_starts, view.names = <const uint32_t*>at[NAME_STARTS], <const ListedName*>at[NAMES]
    view.entity_starts, view.entities = <const uint64_t*>at[ENTITY_STARTS], at[ENTITIES]
    view.country_starts, view.countries = <const uint32_t*>at[COUNTRY_STARTS], <const uint16_t*>at[COUNTRIES]
    view.birth_starts, view.births = <const uint32_t*>at[BIRTH_STARTS], <const uint32_t*>at[BIRTHS]
    view.identifier_starts = <const uint32_t*>at[IDENTIFIER_STARTS]
    view.identifiers = <const ListedIdentifier*>at[IDENTIFIERS]
    view.n_identifier_buckets = <uint32_t>count[IDENTIFIER_STARTS] - 1
    _place_buckets(at, count, NEAR_STARTS, view.n_words, &view.near)
    _place_buckets(at, count, SKELETON_STARTS, view.n_words, &view.skeletons)
    _place_buckets(at, count, KEY_STARTS, view.n_forms, &view.keys)
    _place_buckets(at, count, ID_STARTS, view.n_entities, &view.ids)
    cdef bint sound
    with nogil:
        sound = _is_sound(view, count)
    return None if sound else "something in it points outside of it"


cdef void _place_buckets(const uint8_t** at, const uint64_t* count, int section, uint32_t n_ids, Buckets* out) noexcept:
    out.starts = <const uint32_t*>at[section]
    out.entries = <const uint32_t*>at[section + 1]
    out.n_buckets = <uint32_t>count[section] - 1
    out.id_mask = id_mask_of(n_ids)


cdef bint _rises(const uint32_t* starts, uint64_t count, uint64_t end) noexcept nogil:
    cdef uint64_t i
    for i in range(1, count):
        if starts[i] < starts[i - 1]:
            return False
    return starts[0] == 0 and starts[count - 1] == end


cdef bint _below(const uint32_t* ids, uint64_t count, size_t step, uint32_t mask, uint32_t limit) noexcept nogil:
    """Whether every id is; step: in steps of four bytes from one to the next."""
    cdef uint64_t i
    cdef bint good = True
    for i in range(count):
        good &= (ids[i * step] & mask) < limit
    return good


cdef bint _is_sound(const View* view, const uint64_t* count) noexcept nogil:
    cdef uint64_t i
    cdef uint32_t all = 0xFFFFFFFF
    for i in range(count[LETTERS]):
        if not (97 <= view.letters[i] <= 122 or 48 <= view.letters[i] <= 57):
            return False
    for i in range(view.n_words):
        if (
            view.words[i].length == 0 or view.words[i].length > 32
            or <uint64_t>view.words[i].text + view.words[i].length > count[LETTERS]
        ):
            return False
    for i in range(view.n_forms):
        if view.form_starts[i + 1] - view.form_starts[i] > 24:
            return False
    for i in range(view.n_entities):
        if view.entity_starts[i + 1] < view.entity_starts[i]:
            return False
    if view.entity_starts[0] != 0 or view.entity_starts[view.n_entities] != count[ENTITIES]:
        return False
    return (
        _rises(view.posting_starts, count[POSTING_STARTS], count[POSTINGS])
        and _rises(view.near.starts, count[NEAR_STARTS], count[NEAR])
        and _rises(view.skeletons.starts, count[SKELETON_STARTS], count[SKELETONS])
        and _rises(view.form_starts, count[FORM_STARTS], count[FORM_WORDS])
        and _rises(view.keys.starts, count[KEY_STARTS], count[KEYS])
        and _rises(view.name_starts, count[NAME_STARTS], count[NAMES])
        and _rises(view.country_starts, count[COUNTRY_STARTS], count[COUNTRIES])
        and _rises(view.birth_starts, count[BIRTH_STARTS], count[BIRTHS])
        and _rises(view.identifier_starts, count[IDENTIFIER_STARTS], count[IDENTIFIERS])
        and _rises(view.ids.starts, count[ID_STARTS], count[IDS])
        and _below(<const uint32_t*>view.postings, count[POSTINGS], 2, all, view.n_forms)
        and _below(view.near.entries, count[NEAR], 1, view.near.id_mask, view.n_words)
        and _below(view.skeletons.entries, count[SKELETONS], 1, view.skeletons.id_mask, view.n_words)
        and _below(view.form_words, count[FORM_WORDS], 1, all, view.n_words)
        and _below(view.keys.entries, count[KEYS], 1, view.keys.id_mask, view.n_forms)
        and _below(<const uint32_t*>view.names, count[NAMES], 2, all, view.n_entities)
        and _below(<const uint32_t*>view.identifiers + 2, count[IDENTIFIERS], 4, all, view.n_entities)
        and _below(view.ids.entries, count[IDS], 1, view.ids.id_mask, view.n_entities)
    )
