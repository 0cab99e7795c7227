# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Candidates for a name: which forms of a name index are worth comparing with it.

# Design: each word is looked up as it is, without each of its letters, and by its consonants, so a word with a letter
# wrong is found in a dozen reads, whatever the size of the vocabulary. The postings of what was found are read rarest
# first, until the words that are left could not lift a form to the floor alone, or a fixed number is read. Forms that
# the rarest words led to are looked into for the words left. What a form holds says how it may score; the most
# promising are compared in full (PERF: benchmarks/screening.py, mean and p99).
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp, memcpy

from core.comparison cimport bound_of, least_similar, may_be_similar, promise_of, similarity_of
from core.keys cimport MAX_VARIANTS, form_hash, joined_hash, skeleton_hash, variants, word_hash
from core.normal cimport LEGAL_FORM, MAX_LETTERS, NUMBER, PARTICLE
from core.snapshot cimport Buckets, ListedWord, Posting, bucket_of

__all__ = []

cdef extern from *:
    int lowest_bit "__builtin_ctzll"(uint64_t x) nogil

cdef enum:
    MAX_EXAMINED = 256               # listed words that one word is compared with
    MAX_CHAIN = 64                   # entries of one bucket that are looked at
    LEAST_JOINED = 5                 # letters of two words looked up as one


cdef void _add_found(Unit* unit, uint32_t word, int similarity) noexcept nogil:
    """Best first; where there is no room, the least alike is dropped."""
    cdef int at = unit.n_found
    if at == MAX_FOUND:
        at -= 1
        if unit.found[at].similarity >= similarity:
            return
    else:
        unit.n_found += 1
    while at > 0 and unit.found[at - 1].similarity < similarity:
        unit.found[at] = unit.found[at - 1]
        at -= 1
    unit.found[at].word, unit.found[at].similarity = word, similarity


cdef void _examine(
    const View* view, const Buckets* table, uint64_t hash, const uint8_t* text, int length, uint32_t mask,
    bint only_equal, Unit* unit, uint32_t* examined, int* n_examined
) noexcept nogil:
    cdef uint32_t bucket = bucket_of(hash, table.n_buckets)
    cdef uint32_t i, word, end = min(table.starts[bucket + 1], table.starts[bucket] + MAX_CHAIN)
    cdef const ListedWord* listed
    cdef int k, similarity
    for i in range(table.starts[bucket], end):
        if (table.entries[i] ^ <uint32_t>hash) & ~table.id_mask:
            continue
        word = table.entries[i] & table.id_mask
        for k in range(n_examined[0]):
            if examined[k] == word:
                break
        else:
            if n_examined[0] == MAX_EXAMINED:
                return
            examined[n_examined[0]] = word
            n_examined[0] += 1
            listed = &view.words[word]
            if (
                listed.mask == mask and listed.length == length
                and memcmp(view.letters + listed.text, text, length) == 0
            ):
                _add_found(unit, word, 1000)
            elif (
                not only_equal and listed.kind != NUMBER and listed.kind != LEGAL_FORM
                and may_be_similar(mask, listed.mask, length, listed.length, least_similar(length, listed.length))
            ):
                similarity = similarity_of(
                    text, length, view.letters + listed.text, listed.length, least_similar(length, listed.length)
                )
                if similarity:
                    _add_found(unit, word, similarity)


cdef void _look_up(
    const View* view, const uint8_t* text, int length, uint32_t mask, bint only_equal, Unit* unit
) noexcept nogil:
    cdef uint32_t[MAX_EXAMINED] examined
    cdef uint64_t[MAX_VARIANTS] hashes
    cdef int i, n_examined = 0, n_hashes = 1
    cdef uint64_t hash
    unit.n_found = 0
    unit.length = length
    if only_equal:
        hashes[0] = word_hash(text, length)
    else:
        n_hashes = variants(text, length, hashes)
    for i in range(n_hashes):
        _examine(view, &view.near, hashes[i], text, length, mask, only_equal, unit, examined, &n_examined)
    if not only_equal:
        hash = skeleton_hash(text, length)
        if hash:
            _examine(view, &view.skeletons, hash, text, length, mask, False, unit, examined, &n_examined)


cdef bint _is_repeated(const Word* word, Search* search) noexcept nogil:
    """Whether the word has a unit already, which then stands for it too."""
    cdef int i
    cdef Unit* unit
    for i in range(search.n_units):
        unit = &search.units[i]
        if unit.word != NULL and unit.length == word.length and memcmp(unit.word.text, word.text, word.length) == 0:
            unit.weight[0] = min(255, unit.weight[0] + word.weight[0])
            unit.weight[1] = min(255, unit.weight[1] + word.weight[1])
            return True
    return False


cdef void find_units(const View* view, const Words* name, Search* search) noexcept nogil:
    """The listed words that each word of the name may be. Legal forms are looked up where there is nothing else."""
    cdef const Word* word
    cdef const Word* next
    cdef Unit* unit
    cdef uint8_t[2 * MAX_LETTERS] joined
    cdef int i, n_core = 0
    search.n_units = 0
    for i in range(name.count):
        n_core += name.words[i].kind != LEGAL_FORM
    for i in range(name.count):
        word = &name.words[i]
        if n_core and word.kind == LEGAL_FORM:
            continue
        if not _is_repeated(word, search):
            unit = &search.units[search.n_units]
            unit.word = word
            memcpy(unit.weight, word.weight, 2)
            _look_up(
                view, word.text, word.length, word.mask,
                word.kind == NUMBER or word.kind == LEGAL_FORM or word.kind == PARTICLE, unit
            )
            search.n_units += 1
        if i + 1 == name.count:
            continue
        next = &name.words[i + 1]
        if (
            word.kind != NUMBER and next.kind != NUMBER
            and LEAST_JOINED <= word.length + next.length <= MAX_LETTERS
        ):
            memcpy(joined, word.text, word.length)
            memcpy(joined + word.length, next.text, next.length)
            unit = &search.units[search.n_units]
            unit.word = NULL
            unit.weight[0] = min(255, word.weight[0] + next.weight[0])
            unit.weight[1] = min(255, word.weight[1] + next.weight[1])
            _look_up(view, joined, word.length + next.length, word.mask | next.mask, True, unit)
            if unit.n_found:
                search.n_units += 1


cdef void _add_candidate(Search* search, uint32_t form, double promise) noexcept nogil:
    """Best first; of equal promise, the lower number first."""
    cdef int at = search.n_candidates
    if at == CANDIDATES:
        at -= 1
        if not _comes_before(promise, form, &search.candidates[at]):
            return
    else:
        search.n_candidates += 1
    while at > 0 and _comes_before(promise, form, &search.candidates[at - 1]):
        search.candidates[at] = search.candidates[at - 1]
        at -= 1
    search.candidates[at].form, search.candidates[at].promise = form, promise


cdef inline bint _comes_before(double promise, uint32_t form, const Candidate* other) noexcept nogil:
    return promise > other.promise or (promise == other.promise and form < other.form)


cdef void _add_under_key(const View* view, uint64_t hash, Search* search) noexcept nogil:
    cdef const Buckets* table = &view.keys
    cdef uint32_t bucket = bucket_of(hash, table.n_buckets)
    cdef uint32_t i, end = min(table.starts[bucket + 1], table.starts[bucket] + MAX_CHAIN)
    cdef int k
    for i in range(table.starts[bucket], end):
        if (table.entries[i] ^ <uint32_t>hash) & ~table.id_mask:
            continue
        for k in range(search.n_candidates):
            if search.candidates[k].form == table.entries[i] & table.id_mask:
                break
        else:
            _add_candidate(search, table.entries[i] & table.id_mask, 2.0)


cdef int _read(
    const View* view, const Found* found, int number, int weight, bint person, int room, Search* search
) noexcept nogil:
    """Notes the word in the forms that hold it, `room` at most; returns how many were read."""
    cdef uint32_t first = view.posting_starts[found.word]
    cdef uint32_t end = min(view.posting_starts[found.word + 1], first + room)
    cdef uint32_t matched = found.similarity * min(weight, view.words[found.word].weight[person])
    cdef uint64_t unit = <uint64_t>1 << number
    cdef uint32_t i, at
    cdef const Posting* posting
    cdef Slot* slot
    for i in range(first, end):
        posting = &view.postings[i]
        at = <uint32_t>((<uint64_t>posting.form * 0x9E3779B97F4A7C15ULL) >> 40) & (SLOTS - 1)
        while search.slots[at].form and search.slots[at].form != posting.form + 1:
            at = (at + 1) & (SLOTS - 1)
        slot = &search.slots[at]
        if slot.form == 0:
            slot.form, slot.matched, slot.weight, slot.units = posting.form + 1, matched, posting.weight[person], unit
            search.used[search.n_used] = at
            search.n_used += 1
        elif not slot.units & unit:
            slot.matched += matched
            slot.units |= unit
    return end - first


cdef void _order_readings(const View* view, Search* search) noexcept nogil:
    """All words found, rarest first."""
    cdef int i, k, at
    cdef uint32_t word
    cdef Reading new
    search.n_readings = 0
    for i in range(search.n_units):
        for k in range(search.units[i].n_found):
            word = search.units[i].found[k].word
            new.unit, new.place = i, k
            new.frequency = view.posting_starts[word + 1] - view.posting_starts[word]
            at = search.n_readings
            while at > 0 and search.readings[at - 1].frequency > new.frequency:
                search.readings[at] = search.readings[at - 1]
                at -= 1
            search.readings[at] = new
            search.n_readings += 1


cdef int _held(const View* view, uint32_t form, uint64_t units, bint person, Search* search) noexcept nogil:
    """What a form holds of units whose postings were not all read: thousandths of hundredths."""
    cdef uint32_t i
    cdef int k, matched = 0
    cdef Unit* unit
    while units:
        unit = &search.units[lowest_bit(units)]
        units &= units - 1
        for k in range(unit.n_found):
            for i in range(view.form_starts[form], view.form_starts[form + 1]):
                if view.form_words[i] == unit.found[k].word:
                    break
            else:
                continue
            matched += unit.found[k].similarity * min(
                <int>unit.weight[person], <int>view.words[unit.found[k].word].weight[person]
            )
            break
    return matched


cdef void find_candidates(
    const View* view, const Words* name, bint person, double floor, Search* search
) noexcept nogil:
    """The forms to compare, most promising first. After find_units."""
    cdef int[MAX_UNITS] unread       # words of each unit
    cdef int i, k, n_keys, room = MAX_POSTINGS, weight = 0, left = 0, letters = 0, left_letters = 0
    cdef uint64_t units_left = 0
    cdef int64_t matched
    cdef Unit* unit
    cdef Reading* reading
    cdef Slot* slot
    search.n_candidates = search.n_used = 0
    _add_under_key(view, form_hash(name.words, name.count), search)
    for i in range(name.count):
        weight += name.words[i].weight[person]
        letters += name.words[i].length + 1
        if name.words[i].length >= LEAST_JOINED:
            _add_under_key(view, joined_hash(name.words[i].text, name.words[i].length), search)
    n_keys = search.n_candidates
    for i in range(search.n_units):
        unit = &search.units[i]
        unread[i] = unit.n_found
        if unit.n_found:
            units_left |= <uint64_t>1 << i
            left += unit.weight[person]
            left_letters += unit.length + 1
    _order_readings(view, search)
    for i in range(search.n_readings):
        if room == 0 or bound_of(left, weight, left_letters, letters, person) < floor:
            break
        reading = &search.readings[i]
        unit = &search.units[reading.unit]
        room -= _read(view, &unit.found[reading.place], reading.unit, unit.weight[person], person, room, search)
        unread[reading.unit] -= 1
        if room and unread[reading.unit] == 0:
            units_left &= ~(<uint64_t>1 << reading.unit)
            left -= unit.weight[person]
            left_letters -= unit.length + 1
    for i in range(search.n_used):
        slot = &search.slots[search.used[i]]
        for k in range(n_keys):
            if search.candidates[k].form == slot.form - 1:
                break
        else:
            matched = slot.matched
            if units_left & ~slot.units and i < MAX_OPENED:
                matched += _held(view, slot.form - 1, units_left & ~slot.units, person, search)
            matched = min(matched, 1000 * min(weight, <int>slot.weight))
            _add_candidate(search, slot.form - 1, promise_of(matched, 1000 * weight, 1000 * <int>slot.weight, person))
        slot.form = 0
