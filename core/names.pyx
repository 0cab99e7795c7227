# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The name index: which listed entities a party may be.

# Design: a search goes over the names of the query; for each, candidates are found and compared without the GIL, in
# memory that belongs to the search alone, so any number of threads may search one index. Countries, dates and
# identifiers are looked at only for entities whose name came near the cutoff, and only what is returned is decoded
# and explained.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free

from msgspec import MsgspecError

from core.comparison cimport (
    BELOW_EQUAL, FIRST, NEITHER, NUMBERS_DIFFER, SECOND, Outcome, Pair, Whole, compare_words, make_whole, rounded
)
from core.keys cimport id_hash
from core.lookup cimport CANDIDATES, Search, find_candidates, find_units
from core.memory cimport new_array
from core.normal cimport MAX_WORDS, Name, Word, Words
from core.snapshot cimport Buckets, ListedIdentifier, ListedName, ListedWord, View, bucket_of, open_view

from core.entities import (
    KINDS, are_compatible, birth_number, country_number, identifier_keys, identifier_value, restored
)
from core.indexing import build as _build
from core.matches import Match, Part
from core.snapshot import SnapshotDamaged, SnapshotOutdated

__all__ = ["NameIndex", "SnapshotDamaged", "SnapshotOutdated"]

# What else is known raises or lowers the score of a name a little; a contradiction weighs more than an agreement.
cdef double COUNTRY_AGREES = 0.02
cdef double COUNTRY_DIFFERS = -0.05
cdef double BIRTH_DATE_AGREES = 0.05
cdef double BIRTH_YEAR_AGREES = 0.02
cdef double BIRTH_DATE_DIFFERS = -0.15
cdef double WEAK_NAME = -0.05
cdef double SAME_IDENTIFIER = 0.95   # at least, whatever the names say
cdef double READING_FLOOR = 0.5
cdef double HALF_DIGIT = 0.00005     # what rounding can add

cdef struct Hit:
    uint32_t form
    double score

cdef enum Birth:
    BIRTH_UNKNOWN
    BIRTH_DIFFERS
    BIRTH_COMPATIBLE
    BIRTH_EQUAL


@cython.final
cdef class _Room:
    """The memory of one search at a time."""

    cdef Search* search
    cdef Whole* whole
    cdef Hit[CANDIDATES] hits

    def __cinit__(self):
        self.search = <Search*>new_array(1, sizeof(Search))
        self.whole = <Whole*>new_array(1, sizeof(Whole))

    def __dealloc__(self):
        free(self.search)
        free(self.whole)


@cython.final
cdef class _Best:
    """The best name of one entity so far."""

    cdef double score
    cdef uint32_t form, entity
    cdef int query_name, number
    cdef bint person, weak
    cdef object identifier
    cdef double total
    cdef object country
    cdef int issued  # in which country the identifier is the same; 0 where one side tells none
    cdef Birth birth


cdef int _compare_all(
    const View* view, const Words* name, bint person, double floor, Search* search, Whole* whole, Hit* hits
) noexcept nogil:
    """Forms that reach the floor, in no order; returns how many."""
    cdef Word[MAX_WORDS] words
    cdef int i, count, found = 0
    cdef double score
    # A word that differs in more than a letter leads nowhere by itself, and may be alike enough in the end: what the
    # other words lead to is read as for a lower floor.
    find_candidates(view, name, person, min(floor, READING_FLOOR), search)
    if search.n_candidates == 0:
        return 0
    if not person:
        make_whole(name.words, name.count, whole)
    for i in range(search.n_candidates):
        count = _read_form(view, search.candidates[i].form, words)
        score = compare_words(name.words, name.count, whole, words, count, person, floor, NULL)
        if score > 0.0:
            hits[found].form, hits[found].score = search.candidates[i].form, score
            found += 1
    return found


cdef int _read_form(const View* view, uint32_t form, Word* out) noexcept nogil:
    cdef uint32_t k, start = view.form_starts[form]
    cdef int count = view.form_starts[form + 1] - start
    cdef const ListedWord* listed
    for k in range(<uint32_t>count):
        listed = &view.words[view.form_words[start + k]]
        out[k].text = view.letters + listed.text
        out[k].mask, out[k].length, out[k].kind = listed.mask, listed.length, listed.kind
        out[k].weight[0], out[k].weight[1] = listed.weight[0], listed.weight[1]
    return count


@cython.final
cdef class NameIndex:
    """Listed entities, found by name or identifier. Immutable; any number of threads may use it.

    snapshot: made by NameIndex.build(), as bytes, mmap or memoryview; it is used where it lies and held as long as the
    index lives.  Raises SnapshotDamaged and SnapshotOutdated.
    """

    cdef Py_buffer buffer
    cdef bint is_open
    cdef View view
    cdef object kept                 # the snapshot, where it had to be moved
    cdef list idle                   # rooms that nobody is in

    def __cinit__(self, snapshot):
        self.idle = []
        PyObject_GetBuffer(snapshot, &self.buffer, PyBUF_SIMPLE)
        self.is_open = True
        if <size_t>self.buffer.buf % 8:
            # Arrays of eight-byte numbers have to lie at multiples of eight.
            self.kept = bytes(snapshot)
            PyBuffer_Release(&self.buffer)
            self.is_open = False
            PyObject_GetBuffer(self.kept, &self.buffer, PyBUF_SIMPLE)
            self.is_open = True
        open_view(self.kept if self.kept is not None else snapshot, <const uint8_t*>self.buffer.buf, self.buffer.len,
                  &self.view)

    def __dealloc__(self):
        if self.is_open:
            PyBuffer_Release(&self.buffer)

    @staticmethod
    def build(entities):
        """The snapshot of an index of these entities. Raises ValueError for what core.indexing.build cannot hold."""
        return _build(entities)

    @property
    def n_entities(self):
        return self.view.n_entities

    @property
    def n_names(self):
        """Names and aliases, weak ones too."""
        return self.view.n_names

    @property
    def n_bytes(self):
        return self.buffer.len

    @property
    def entity_bytes(self):
        """How many of n_bytes are the entities themselves, as they are given back."""
        return self.view.entity_starts[self.view.n_entities]

    def probes(self):
        """For each hash table: (entries read to find one that is there, on average; most entries of a bucket)."""
        return {
            "words": _probes(self.view.near.starts, self.view.near.n_buckets),
            "skeletons": _probes(self.view.skeletons.starts, self.view.skeletons.n_buckets),
            "forms": _probes(self.view.keys.starts, self.view.keys.n_buckets),
            "ids": _probes(self.view.ids.starts, self.view.ids.n_buckets),
            "identifiers": _probes(self.view.identifier_starts, self.view.n_identifier_buckets),
        }

    def entity(self, Py_ssize_t ordinal):
        """Raises IndexError."""
        if not 0 <= ordinal < self.view.n_entities:
            raise IndexError(f"the index holds {self.view.n_entities:,} entities; there is none with ordinal {ordinal}")
        return self.decoded(<uint32_t>ordinal)

    cdef decoded(self, uint32_t ordinal):
        cdef uint64_t start = self.view.entity_starts[ordinal]
        try:
            return restored((<const char*>self.view.entities)[start:self.view.entity_starts[ordinal + 1]])
        except (MsgspecError, UnicodeDecodeError) as error:
            raise SnapshotDamaged(f"its entity {ordinal} cannot be read: {error}") from error

    def find(self, str entity_id not None):
        """The ordinal of the entity with that id, the first where several have it; None where none has."""
        cdef bytes text = entity_id.encode("utf-8", "surrogatepass")
        cdef uint64_t hash = id_hash(<const uint8_t*><const char*>text, len(text))
        cdef const Buckets* table = &self.view.ids
        cdef uint32_t bucket = bucket_of(hash, table.n_buckets)
        cdef uint32_t i, ordinal
        for i in range(table.starts[bucket], table.starts[bucket + 1]):
            if (table.entries[i] ^ <uint32_t>hash) & ~table.id_mask:
                continue
            ordinal = table.entries[i] & table.id_mask
            if self.decoded(ordinal).id == entity_id:
                return ordinal
        return None

    def search(self, query, double cutoff, Py_ssize_t limit):
        """Matches that reach the cutoff, best first, at most `limit`; those of one score in the order of the list.

        query: core.matches.Query.  An entity is there once, with the name that matches best.
        """
        cdef dict best = {}
        cdef double floor = cutoff - HALF_DIGIT
        if query.countries:
            floor -= COUNTRY_AGREES
        if query.birth_date is not None:
            floor -= BIRTH_DATE_AGREES
        if limit <= 0:
            return []
        cdef _Room room
        try:
            room = self.idle.pop()
        except IndexError:
            room = _Room()
        for i, name in enumerate(query.names):
            self.search_name(name, i, query.person, floor, room, best)
        self.idle.append(room)
        self.search_identifiers(query.identifiers, best)
        countries = frozenset(filter(None, map(country_number, query.countries)))
        cdef uint32_t birth = birth_number(query.birth_date) if query.birth_date is not None else 0
        cdef _Best found
        reached = []
        for found in best.values():
            self.weigh(found, countries, birth)
            if found.total >= cutoff:
                reached.append((-found.total, found.entity, found))
        reached.sort(key=_first_two)
        return [self.match(item[2], query) for item in reached[:limit]]

    cdef int search_name(self, Name name, int query_name, person, double floor, _Room room, dict best) except -1:
        cdef int count, i, mode
        cdef const ListedName* listed
        cdef uint32_t k
        cdef bint wanted_0 = person is None or not person, wanted_1 = person is None or person
        if name.words.count == 0:
            return 0
        with nogil:
            find_units(&self.view, name.words, room.search)
        for mode in range(2):
            if not (wanted_1 if mode else wanted_0):
                continue
            with nogil:
                count = _compare_all(&self.view, name.words, mode, floor, room.search, room.whole, room.hits)
            for i in range(count):
                for k in range(self.view.name_starts[room.hits[i].form], self.view.name_starts[room.hits[i].form + 1]):
                    listed = &self.view.names[k]
                    self.note(best, listed, &room.hits[i], query_name, mode)
        return 0

    cdef int note(self, dict best, const ListedName* listed, const Hit* hit, int query_name, bint person) except -1:
        cdef double score = hit.score + (WEAK_NAME if listed.weak else 0.0)
        cdef _Best found = best.get(listed.entity)
        if found is None:
            found = _Best.__new__(_Best)
            found.entity = listed.entity
            best[listed.entity] = found
        elif score < found.score or (
            score == found.score and (query_name, listed.number) >= (found.query_name, found.number)
        ):
            return 0
        found.score, found.form, found.query_name, found.number = score, hit.form, query_name, listed.number
        found.person, found.weak = person, listed.weak
        return 0

    cdef int search_identifiers(self, identifiers, dict best) except -1:
        cdef bytes text
        cdef uint64_t hash
        cdef uint32_t bucket, i
        cdef const ListedIdentifier* listed
        cdef _Best found
        for kind, value, country in identifier_keys(identifiers):
            text = value.encode()
            hash = id_hash(<const uint8_t*><const char*>text, len(text))
            bucket = bucket_of(hash, self.view.n_identifier_buckets)
            for i in range(self.view.identifier_starts[bucket], self.view.identifier_starts[bucket + 1]):
                listed = &self.view.identifiers[i]
                if listed.hash != hash or listed.kind >= len(KINDS):
                    continue
                if not are_compatible(KINDS[listed.kind], KINDS[kind]) or (
                    country and listed.country and country != listed.country
                ):
                    continue
                entity = self.decoded(listed.entity)
                if not any(identifier_value(item.value) == value for item in entity.identifiers):
                    continue
                found = best.get(listed.entity)
                if found is None:
                    found = _Best.__new__(_Best)
                    found.entity, found.query_name, found.number, found.score = listed.entity, -1, -1, 0.0
                    best[listed.entity] = found
                if found.identifier is None:
                    found.identifier = value
                if country and country == listed.country:
                    found.issued = country
        return 0

    cdef int weigh(self, _Best found, countries, uint32_t birth) except -1:
        """The score with all that is known."""
        cdef uint32_t i, listed
        cdef uint32_t first = self.view.country_starts[found.entity], end = self.view.country_starts[found.entity + 1]
        cdef double score = found.score
        cdef Birth agreement = BIRTH_UNKNOWN
        if countries and (first < end or found.issued):
            # An identifier of the country that was asked for says as much as the country of an address.
            found.country = found.issued in countries
            for i in range(first, end):
                if self.view.countries[i] in countries:
                    found.country = True
            score += COUNTRY_AGREES if found.country else COUNTRY_DIFFERS
        if birth:
            for i in range(self.view.birth_starts[found.entity], self.view.birth_starts[found.entity + 1]):
                listed = self.view.births[i]
                if listed == birth and birth % 100:
                    agreement = BIRTH_EQUAL
                elif _is_compatible(listed, birth):
                    agreement = max(agreement, BIRTH_COMPATIBLE)
                else:
                    agreement = max(agreement, BIRTH_DIFFERS)
        found.birth = agreement
        score += _birth_effect(agreement)
        score = max(0.0, min(score, 1.0 if found.score >= 1.0 else BELOW_EQUAL))
        if found.identifier is not None:
            score = max(score, SAME_IDENTIFIER)
        found.total = rounded(score)
        return 0

    cdef match(self, _Best found, query):
        """What is told of an entity that is returned."""
        cdef Outcome outcome
        cdef bint equal = False
        entity = self.decoded(found.entity)
        parts = []
        name = ""
        if found.number >= 0:
            names = entity.names + entity.weak_names
            if found.number >= len(names):
                raise SnapshotDamaged(f"its entity {found.entity} has no name {found.number}")
            name = names[found.number]
            self.compare_again(found, query.names[found.query_name], &outcome, parts)
            equal = outcome.equal
        elif entity.names or entity.weak_names:
            name = (entity.names + entity.weak_names)[0]
        if found.weak:
            parts.append(Part("weak_name", name, WEAK_NAME))
        if found.country is not None:
            told = query.countries if not found.country else [
                code
                for code in query.countries
                if country_number(code) == found.issued or code.upper() in {other.upper() for other in entity.countries}
            ]
            parts.append(Part("country", ", ".join(told), COUNTRY_AGREES if found.country else COUNTRY_DIFFERS))
        if found.birth != BIRTH_UNKNOWN:
            parts.append(Part("birth_date", query.birth_date, _birth_effect(found.birth)))
        if found.identifier is not None:
            parts.append(Part("identifier", found.identifier, SAME_IDENTIFIER))
        return Match(
            entity=found.entity,
            score=found.total,
            name=name,
            query_name=max(0, found.query_name),
            parts=tuple(parts),
            is_exact_name=bool(equal),
            is_identifier=found.identifier is not None,
            birth_date_agrees=found.birth == BIRTH_EQUAL,
            country_agrees=found.country,
        )

    cdef int compare_again(self, _Best found, Name name, Outcome* outcome, list parts) except -1:
        """The comparison that gave the score, this time with its parts."""
        cdef Word[MAX_WORDS] listed
        cdef Whole whole
        cdef const Word* asked = name.words.words
        cdef int i, count = _read_form(&self.view, found.form, listed)
        cdef const Pair* pair
        make_whole(asked, name.words.count, &whole)
        compare_words(asked, name.words.count, &whole, listed, count, found.person, 0.0, outcome)
        for i in range(outcome.n_pairs):
            pair = &outcome.pairs[i]
            first, second = _text(&asked[pair.a], pair.joined == FIRST), _text(&listed[pair.b], pair.joined == SECOND)
            equal = pair.similarity == 1000 and pair.joined == NEITHER
            parts.append(Part(
                "equal" if equal else "similar", first if equal else f"{first}~{second}", pair.similarity / 1000.0,
                pair.weight / 100.0,
            ))
        for i in range(name.words.count):
            if outcome.left_a[i]:
                parts.append(Part("left_over", _text(&asked[i], False), 0.0, asked[i].weight[found.person] / 100.0))
        for i in range(count):
            if outcome.left_b[i]:
                weight = listed[i].weight[found.person] / 100.0
                parts.append(Part("left_over_listed", _text(&listed[i], False), 0.0, weight))
        if outcome.numbers_differ:
            parts.append(Part("numbers", "", -NUMBERS_DIFFER))
        if outcome.whole >= 0.0:
            parts.append(Part("whole", "", rounded(outcome.whole)))
        return 0


def _first_two(item):
    return item[:2]


cdef str _text(const Word* word, bint with_next):
    text = (<const char*>word.text)[:word.length].decode("ascii")
    return f"{text} {_text(word + 1, False)}" if with_next else text


cdef bint _is_compatible(uint32_t listed, uint32_t asked) noexcept:
    """Whether one is the other, told less precisely."""
    if listed % 100 and asked % 100:
        return listed == asked
    if listed // 100 % 100 and asked // 100 % 100:
        return listed // 100 == asked // 100
    return listed // 10000 == asked // 10000


cdef double _birth_effect(Birth birth) noexcept:
    if birth == BIRTH_EQUAL:
        return BIRTH_DATE_AGREES
    if birth == BIRTH_COMPATIBLE:
        return BIRTH_YEAR_AGREES
    return BIRTH_DATE_DIFFERS if birth == BIRTH_DIFFERS else 0.0


cdef tuple _probes(const uint32_t* starts, uint32_t n_buckets):
    cdef uint64_t read = 0, size
    cdef uint32_t i, longest = 0
    for i in range(n_buckets):
        size = starts[i + 1] - starts[i]
        read += size * (size + 1) // 2
        longest = max(longest, <uint32_t>size)
    return (<double>read / starts[n_buckets] if starts[n_buckets] else 0.0, longest)
