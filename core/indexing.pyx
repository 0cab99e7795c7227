# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Building the bytes of a name index.

# Design: names are read one by one, words and forms (names that have the same words in the same order) numbered as
# they come; everything else is counting sorts over those numbers, without the GIL. Postings of a word are in the
# order of the forms' weights, so that whoever reads only the first of them reads those in which the word matters
# most.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset

import zlib

from core.growing cimport Grown, Places, append, append_32, append_64, make_room
from core.keys cimport MAX_VARIANTS, form_hash, id_hash, joined_hash, skeleton_hash, variants, word_hash
from core.memory cimport new_array
from core.normal cimport LEGAL_FORM, MAX_LETTERS, MAX_WORDS, NUMBER, Word, Words, normalise
from core.snapshot cimport (
    BIRTH_STARTS, BIRTHS, COUNTRIES, COUNTRY_STARTS, ENTITIES, ENTITY_STARTS, FORM_STARTS, FORM_WORDS, ID_STARTS,
    IDENTIFIER_STARTS, IDENTIFIERS, KEY_STARTS, LAYOUT, LETTERS, N_SECTIONS, NAME_STARTS, NAMES, NEAR_STARTS,
    POSTING_STARTS, POSTINGS, SKELETON_STARTS, WORDS, Header, ListedIdentifier, ListedName, ListedWord, Posting,
    bucket_of, id_mask_of, item_bytes, magic, stamp
)

from core.entities import birth_number, country_number, identifier_keys, stored

__all__ = ["build"]

MAX_ENTITIES = (1 << 31) - 1
cdef enum:
    PER_BUCKET = 2                   # entries, on average
    MAX_NAMES = 65535                # of one entity


@cython.final
cdef class _Builder:
    """What is known so far. Arrays of numbers by section, and what has to be sorted in the end."""

    cdef Grown[N_SECTIONS] sections
    cdef Grown word_hashes, form_hashes           # by number
    cdef Grown form_weights                       # two uint16 a form
    cdef Grown name_forms                         # by name, in the order read
    cdef Grown near_hashes, near_ids, skeleton_hashes, skeleton_ids, key_hashes, key_ids, id_hashes, id_ids
    cdef Places words, forms
    cdef uint32_t n_words, n_forms, n_names, n_entities
    cdef Words* scratch

    def __cinit__(self):
        self.scratch = <Words*>new_array(1, sizeof(Words))
        for section in (POSTING_STARTS, FORM_STARTS, COUNTRY_STARTS, BIRTH_STARTS):
            append_32(&self.sections[section], 0)
        append_64(&self.sections[ENTITY_STARTS], 0)

    def __dealloc__(self):
        cdef int i
        for i in range(N_SECTIONS):
            free(self.sections[i].data)
        free(self.word_hashes.data)
        free(self.form_hashes.data)
        free(self.form_weights.data)
        free(self.name_forms.data)
        free(self.near_hashes.data)
        free(self.near_ids.data)
        free(self.skeleton_hashes.data)
        free(self.skeleton_ids.data)
        free(self.key_hashes.data)
        free(self.key_ids.data)
        free(self.id_hashes.data)
        free(self.id_ids.data)
        free(self.words.slots)
        free(self.forms.slots)
        free(self.scratch)

    cdef int add(self, entity) except -1:
        cdef bytes encoded = stored(entity)
        cdef bytes text = entity.id.encode("utf-8", "surrogatepass")
        cdef ListedIdentifier identifier
        cdef uint32_t number
        cdef uint16_t country
        cdef bint person = entity.schema == "Person"
        if len(entity.names) + len(entity.weak_names) > MAX_NAMES:
            raise ValueError(f"the entity {entity.id!r} has more than {MAX_NAMES:,} names")
        append(&self.sections[ENTITIES], PyBytes_AS_STRING(encoded), len(encoded))
        append_64(&self.sections[ENTITY_STARTS], self.sections[ENTITIES].length)
        append_64(&self.id_hashes, id_hash(<const uint8_t*>PyBytes_AS_STRING(text), len(text)))
        append_32(&self.id_ids, self.n_entities)
        for i, name in enumerate(entity.names):
            self.add_name(name, person, i, False)
        for i, name in enumerate(entity.weak_names, len(entity.names)):
            self.add_name(name, person, i, True)
        for code in entity.countries:
            country = country_number(code)
            if country:
                append(&self.sections[COUNTRIES], &country, 2)
        append_32(&self.sections[COUNTRY_STARTS], <uint32_t>(self.sections[COUNTRIES].length // 2))
        for date in entity.birth_dates:
            number = birth_number(date)
            if number:
                append_32(&self.sections[BIRTHS], number)
        append_32(&self.sections[BIRTH_STARTS], <uint32_t>(self.sections[BIRTHS].length // 4))
        for kind, value, code in identifier_keys(entity.identifiers):
            text = value.encode()
            identifier.hash = id_hash(<const uint8_t*>PyBytes_AS_STRING(text), len(text))
            identifier.entity = self.n_entities
            identifier.country = code
            identifier.kind = kind
            append(&self.sections[IDENTIFIERS], &identifier, sizeof(identifier))
        self.n_entities += 1
        return 0

    cdef int add_name(self, str name, bint person, uint32_t number, bint weak) except -1:
        """A name without a word in it is kept with its entity and found by nobody."""
        cdef uint32_t[MAX_WORDS] numbers
        cdef ListedName listed
        cdef uint32_t form
        cdef int i
        normalise(name, person, self.scratch)
        for i in range(self.scratch.count):
            numbers[i] = self.word(&self.scratch.words[i])
        form = self.form(numbers, self.scratch.count)
        listed.entity, listed.number, listed.weak = self.n_entities, <uint16_t>number, weak
        append(&self.sections[NAMES], &listed, sizeof(listed))
        append_32(&self.name_forms, form)
        self.n_names += 1
        return 0

    cdef uint32_t word(self, const Word* word) except? 0xFFFFFFFF:
        """The number of a word, new or not."""
        cdef uint64_t hash = word_hash(word.text, word.length)
        cdef uint32_t at, number
        cdef ListedWord listed
        cdef const ListedWord* other
        make_room(&self.words, <uint64_t*>self.word_hashes.data)
        at = <uint32_t>hash & self.words.mask
        while self.words.slots[at]:
            number = self.words.slots[at] - 1
            if (<uint64_t*>self.word_hashes.data)[number] == hash:
                other = &(<ListedWord*>self.sections[WORDS].data)[number]
                if other.length == word.length and memcmp(
                    self.sections[LETTERS].data + other.text, word.text, word.length
                ) == 0:
                    return number
            at = (at + 1) & self.words.mask
        listed.text = <uint32_t>self.sections[LETTERS].length
        listed.mask, listed.length, listed.kind = word.mask, word.length, word.kind
        memcpy(listed.weight, word.weight, 2)
        append(&self.sections[LETTERS], word.text, word.length)
        append(&self.sections[WORDS], &listed, sizeof(listed))
        append_64(&self.word_hashes, hash)
        self.words.slots[at] = self.n_words + 1
        self.words.used += 1
        self.n_words += 1
        self.file_word(word, self.n_words - 1)
        return self.n_words - 1

    cdef int file_word(self, const Word* word, uint32_t number) except -1:
        cdef uint64_t[MAX_VARIANTS] hashes
        cdef int i, count = variants(word.text, word.length, hashes)
        if word.kind == NUMBER or word.kind == LEGAL_FORM:
            count = 1                 # found as they are only
        for i in range(count):
            append_64(&self.near_hashes, hashes[i])
            append_32(&self.near_ids, number)
        cdef uint64_t hash = skeleton_hash(word.text, word.length) if count > 1 else 0
        if hash:
            append_64(&self.skeleton_hashes, hash)
            append_32(&self.skeleton_ids, number)
        return 0

    cdef uint32_t form(self, const uint32_t* numbers, int count) except? 0xFFFFFFFF:
        cdef uint64_t hash = 14695981039346656037ULL
        cdef uint32_t at, number
        cdef const uint32_t* starts
        cdef int i
        for i in range(count):
            hash = (hash ^ numbers[i]) * 0x9E3779B97F4A7C15ULL
            hash ^= hash >> 31
        make_room(&self.forms, <uint64_t*>self.form_hashes.data)
        at = <uint32_t>hash & self.forms.mask
        while self.forms.slots[at]:
            number = self.forms.slots[at] - 1
            if (<uint64_t*>self.form_hashes.data)[number] == hash:
                starts = &(<uint32_t*>self.sections[FORM_STARTS].data)[number]
                if starts[1] - starts[0] == <uint32_t>count and (count == 0 or memcmp(
                    <uint32_t*>self.sections[FORM_WORDS].data + starts[0], numbers, 4 * count
                ) == 0):
                    return number
            at = (at + 1) & self.forms.mask
        append(&self.sections[FORM_WORDS], numbers, 4 * count)
        append_32(&self.sections[FORM_STARTS], <uint32_t>(self.sections[FORM_WORDS].length // 4))
        append_64(&self.form_hashes, hash)
        self.forms.slots[at] = self.n_forms + 1
        self.forms.used += 1
        self.n_forms += 1
        self.file_form(self.n_forms - 1)
        return self.n_forms - 1

    cdef int file_form(self, uint32_t number) except -1:
        """Under all its words; two words that are no legal forms also as one."""
        cdef const Word* words = self.scratch.words
        cdef int i, n_core = 0, length = 0
        cdef uint16_t[2] weight
        cdef uint8_t[2 * MAX_LETTERS] joined
        weight[0] = weight[1] = 0
        for i in range(self.scratch.count):
            weight[0] += words[i].weight[0]
            weight[1] += words[i].weight[1]
            if words[i].kind != LEGAL_FORM:
                n_core += 1
                if n_core <= 2:
                    memcpy(joined + length, words[i].text, words[i].length)
                    length += words[i].length
        append(&self.form_weights, weight, 4)
        append_64(&self.key_hashes, form_hash(words, self.scratch.count))
        append_32(&self.key_ids, number)
        if n_core == 2 and length <= MAX_LETTERS:
            append_64(&self.key_hashes, joined_hash(joined, length))
            append_32(&self.key_ids, number)
        return 0

    cdef int finish(self) except -1 nogil:
        """Everything that is sorted."""
        _fill_buckets(&self.near_hashes, &self.near_ids, self.n_words, &self.sections[NEAR_STARTS])
        _fill_buckets(&self.skeleton_hashes, &self.skeleton_ids, self.n_words, &self.sections[SKELETON_STARTS])
        _fill_buckets(&self.key_hashes, &self.key_ids, self.n_forms, &self.sections[KEY_STARTS])
        _fill_buckets(&self.id_hashes, &self.id_ids, self.n_entities, &self.sections[ID_STARTS])
        self.sort_names()
        self.sort_identifiers()
        self.write_postings()
        return 0

    cdef int sort_names(self) except -1 nogil:
        cdef Grown sorted_names
        cdef Grown* starts = &self.sections[NAME_STARTS]
        cdef ListedName* names = <ListedName*>self.sections[NAMES].data
        cdef uint32_t* forms = <uint32_t*>self.name_forms.data
        cdef uint32_t* next
        cdef uint32_t i
        memset(&sorted_names, 0, sizeof(Grown))
        next = _starts(starts, forms, self.n_names, self.n_forms)
        try:
            _reserve(&sorted_names, self.n_names * sizeof(ListedName))
            for i in range(self.n_names):
                (<ListedName*>sorted_names.data)[next[forms[i]]] = names[i]
                next[forms[i]] += 1
        finally:
            free(next)
        free(self.sections[NAMES].data)
        self.sections[NAMES] = sorted_names
        return 0

    cdef int sort_identifiers(self) except -1 nogil:
        cdef Grown placed, buckets
        cdef Grown* given = &self.sections[IDENTIFIERS]
        cdef ListedIdentifier* items = <ListedIdentifier*>given.data
        cdef uint32_t n = <uint32_t>(given.length // sizeof(ListedIdentifier))
        cdef uint32_t n_buckets = n // PER_BUCKET + 1
        cdef uint32_t* next
        cdef uint32_t i, bucket
        memset(&placed, 0, sizeof(Grown))
        memset(&buckets, 0, sizeof(Grown))
        try:
            for i in range(n):
                append_32(&buckets, bucket_of(items[i].hash, n_buckets))
            next = _starts(&self.sections[IDENTIFIER_STARTS], <uint32_t*>buckets.data, n, n_buckets)
            try:
                _reserve(&placed, n * sizeof(ListedIdentifier))
                for i in range(n):
                    bucket = (<uint32_t*>buckets.data)[i]
                    (<ListedIdentifier*>placed.data)[next[bucket]] = items[i]
                    next[bucket] += 1
            finally:
                free(next)
        finally:
            free(buckets.data)
        free(given.data)
        given[0] = placed
        return 0

    cdef int write_postings(self) except -1 nogil:
        cdef const uint32_t* starts = <uint32_t*>self.sections[FORM_STARTS].data
        cdef uint32_t* words = <uint32_t*>self.sections[FORM_WORDS].data
        cdef const uint16_t* weights = <uint16_t*>self.form_weights.data
        cdef Grown* postings = &self.sections[POSTINGS]
        cdef Posting* posting
        cdef uint32_t* order = NULL
        cdef uint32_t* counts = NULL
        cdef uint32_t i, k, form, n_kept = 0
        try:
            counts = <uint32_t*>_zeroed(self.n_words + 1, 4)
            for form in range(self.n_forms):
                for k in range(starts[form], starts[form + 1]):
                    if _is_first(words, starts[form], k):
                        counts[words[k] + 1] += 1
                        n_kept += 1
            for i in range(self.n_words):
                counts[i + 1] += counts[i]
            self.sections[POSTING_STARTS].length = 0
            append(&self.sections[POSTING_STARTS], counts, 4 * (self.n_words + 1))
            order = _by_weight(weights, self.n_forms)
            _reserve(postings, n_kept * sizeof(Posting))
            for i in range(self.n_forms):
                form = order[i]
                for k in range(starts[form], starts[form + 1]):
                    if _is_first(words, starts[form], k):
                        posting = &(<Posting*>postings.data)[counts[words[k]]]
                        counts[words[k]] += 1
                        posting.form = form
                        posting.weight[0] = weights[2 * form]
                        posting.weight[1] = weights[2 * form + 1]
        finally:
            free(order)
            free(counts)
        return 0

    cdef bytes write(self):
        cdef Header header
        cdef uint64_t size = sizeof(Header)
        cdef uint64_t end
        cdef int i
        memset(&header, 0, sizeof(Header))
        for i in range(N_SECTIONS):
            header.spans[i].offset = size
            header.spans[i].count = self.sections[i].length // item_bytes(i)
            size = (size + self.sections[i].length + 7) & ~<uint64_t>7
        header.magic, header.layout, header.size, header.stamp = magic(), LAYOUT, size, stamp()
        header.n_names = self.n_names
        cdef bytes snapshot = PyBytes_FromStringAndSize(NULL, size)
        cdef char* out = PyBytes_AS_STRING(snapshot)
        with nogil:
            for i in range(N_SECTIONS):
                end = header.spans[i + 1].offset if i + 1 < N_SECTIONS else size
                if self.sections[i].length:
                    memcpy(out + header.spans[i].offset, self.sections[i].data, self.sections[i].length)
                memset(out + header.spans[i].offset + self.sections[i].length, 0,
                       end - header.spans[i].offset - self.sections[i].length)
        memcpy(out, &header, sizeof(Header))
        header.checksum = zlib.crc32(snapshot)
        memcpy(out, &header, sizeof(Header))
        return snapshot


cdef inline bint _is_first(const uint32_t* words, uint32_t start, uint32_t k) noexcept nogil:
    cdef uint32_t i
    for i in range(start, k):
        if words[i] == words[k]:
            return False
    return True


cdef inline void* _zeroed(size_t count, size_t size) except NULL nogil:
    with gil:
        return new_array(count, size)


cdef int _reserve(Grown* to, size_t n_bytes) except -1 nogil:
    """That many bytes, zeroed."""
    to.data = <uint8_t*>_zeroed(n_bytes, 1)
    to.length = to.room = n_bytes
    return 0


cdef uint32_t* _starts(Grown* out, const uint32_t* owners, uint32_t n, uint32_t n_owners) except NULL nogil:
    """Writes where each owner's items begin, n_owners + 1 numbers.

    Returns the same again to count with, which the caller frees.
    """
    cdef uint32_t* next = <uint32_t*>_zeroed(n_owners + 1, 4)
    cdef uint32_t i
    for i in range(n):
        next[owners[i] + 1] += 1
    for i in range(n_owners):
        next[i + 1] += next[i]
    out.length = 0
    append(out, next, 4 * (<size_t>n_owners + 1))
    return next


cdef int _fill_buckets(const Grown* hashes, const Grown* ids, uint32_t n_ids, Grown* out) except -1 nogil:
    """out: the section of starts; the entries go into the one behind it."""
    cdef uint32_t n = <uint32_t>(ids.length // 4)
    cdef uint32_t n_buckets = n // PER_BUCKET + 1
    cdef uint32_t mask = id_mask_of(n_ids)
    cdef const uint64_t* hash = <uint64_t*>hashes.data
    cdef uint32_t i, bucket
    cdef Grown buckets
    cdef uint32_t* next
    memset(&buckets, 0, sizeof(Grown))
    try:
        _reserve(&buckets, 4 * <size_t>n)
        for i in range(n):
            (<uint32_t*>buckets.data)[i] = bucket_of(hash[i], n_buckets)
        next = _starts(out, <uint32_t*>buckets.data, n, n_buckets)
        try:
            _reserve(out + 1, 4 * <size_t>n)
            for i in range(n):
                bucket = (<uint32_t*>buckets.data)[i]
                (<uint32_t*>out[1].data)[next[bucket]] = (<uint32_t>hash[i] & ~mask) | (<uint32_t*>ids.data)[i]
                next[bucket] += 1
        finally:
            free(next)
    finally:
        free(buckets.data)
    return 0


cdef uint32_t* _by_weight(const uint16_t* weights, uint32_t n) except NULL nogil:
    """Forms in the order of their weight as an organisation's and a person's together, then of their number."""
    cdef uint32_t* order = <uint32_t*>_zeroed(n, 4)
    cdef uint32_t* next = <uint32_t*>_zeroed(1 << 17, 4)
    cdef uint32_t i, weight
    for i in range(n):
        next[<uint32_t>weights[2 * i] + weights[2 * i + 1] + 1] += 1
    for i in range((1 << 17) - 1):
        next[i + 1] += next[i]
    for i in range(n):
        weight = <uint32_t>weights[2 * i] + weights[2 * i + 1]
        order[next[weight]] = i
        next[weight] += 1
    free(next)
    return order


def build(entities):
    """The snapshot of a name index.

    entities: iterable of core.entities.Entity.  Raises ValueError for more than 2 ** 31 - 1 entities, for an entity
    with more than 65,535 names, and for text that is not Unicode (lone surrogates).
    """
    cdef _Builder builder = _Builder()
    for entity in entities:
        if builder.n_entities >= MAX_ENTITIES:
            raise ValueError(f"an index holds at most {MAX_ENTITIES:,} entities")
        builder.add(entity)
    with nogil:
        builder.finish()
    return builder.write()
