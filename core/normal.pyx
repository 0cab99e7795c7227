# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The words of a name as they are compared.

# Design: one pass over ASCII bytes makes words (lower case, apostrophes dropped, `A.B.C.` joined, `SiemensAG` parted
# where the ending is a legal form); a trie over the table's words then folds legal forms and spellings, longest
# first; ignored words go. Text in other letters is transliterated first, character by character, through a dictionary
# that fills itself. Nothing is refused: what lies beyond the last word is one word made of its hash, so that names
# that differ only there still differ.
"""

cimport cython
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy

import unicodedata

from anyascii import anyascii

from core.memory cimport new_array

from core.words import WORDS

__all__ = ["Name", "prepare", "words_of"]

cdef uint64_t MULTIPLIER = 0x9E3779B97F4A7C15
cdef const char* ALPHABET = b"abcdefghijklmnopqrstuvwxyz"
_PERSON = {"Person": True, "LegalEntity": None, None: None}
_KINDS = ("full", "legal_form", "common", "particle", "title", "number", "numeral")

cdef struct Entry:                   # one word of the table
    const uint8_t* text
    uint8_t length
    uint8_t kind
    uint8_t[2] weight
    bint ignored
    bint ends                        # a legal form that may stand unparted at the end of a word

cdef struct Step:                    # trie: from a node by a word to a node
    uint32_t key                     # node << 16 | word, 0 = empty (no step leads from the root by word 0)
    uint32_t node

cdef struct Read:                    # one word as written
    uint8_t* text
    int length
    int entry                        # its place in the table, or 0

cdef Entry* ENTRIES = NULL           # from 1
cdef uint32_t* SLOTS = NULL
cdef uint32_t SLOT_MASK = 0
cdef Step* STEPS = NULL
cdef uint32_t STEP_MASK = 0
cdef int* RESULTS = NULL             # node to its first replacement in REPLACEMENTS, 0 = none; each run ends with 0
cdef int* REPLACEMENTS = NULL
cdef uint8_t[16] LENGTHS
cdef int N_LENGTHS = 0
cdef uint8_t[2] FULL_WEIGHT, NUMBER_WEIGHT
cdef uint8_t[256] CLASSES            # 0 = separator; else the letter in lower case
cdef bytes TEXT = b""                # the table's letters; ENTRIES point into it


cdef uint64_t hash_bytes(const uint8_t* text, Py_ssize_t length, uint64_t seed) noexcept nogil:
    cdef uint64_t h = seed ^ (<uint64_t>length * MULTIPLIER)
    cdef uint64_t word
    while length > 0:
        word = 0
        memcpy(&word, text, 8 if length > 8 else length)
        h = (h ^ word) * MULTIPLIER
        h ^= h >> 29
        text += 8
        length -= 8
    h *= MULTIPLIER
    return h ^ (h >> 32)


cdef uint32_t mask_of(const uint8_t* text, int length) noexcept nogil:
    """A bit a letter; the ten digits share six."""
    cdef uint32_t mask = 0
    cdef int i
    for i in range(length):
        if text[i] >= 97:
            mask |= <uint32_t>1 << (text[i] - 97)
        else:
            mask |= <uint32_t>1 << (26 + (text[i] - 48) % 6)
    return mask


cdef int _find_entry(const uint8_t* text, int length) noexcept nogil:
    cdef uint32_t place = <uint32_t>hash_bytes(text, length, 1) & SLOT_MASK
    cdef uint32_t found
    while SLOTS[place]:
        found = SLOTS[place]
        if ENTRIES[found].length == length and memcmp(ENTRIES[found].text, text, length) == 0:
            return found
        place = (place + 1) & SLOT_MASK
    return 0


cdef uint32_t _step(uint32_t node, int entry) noexcept nogil:
    """The node after a word, or 0."""
    cdef uint32_t key = node << 16 | <uint32_t>entry
    cdef uint32_t place = <uint32_t>((<uint64_t>key * MULTIPLIER) >> 40) & STEP_MASK
    while STEPS[place].key:
        if STEPS[place].key == key:
            return STEPS[place].node
        place = (place + 1) & STEP_MASK
    return 0


cdef int _read(
    const uint8_t* s, Py_ssize_t n, bint part_endings, Read* read, uint8_t* letters, uint64_t* rest
) noexcept nogil:
    """The words as written; those beyond MAX_READ go into the hash `rest`. Returns how many."""
    cdef int count = 0, length = 0, upper = 0, k
    cdef bint dotted = False, after_lower = False, is_run = False
    cdef uint8_t* at = letters        # where the open word begins
    cdef uint8_t c, kind
    cdef Py_ssize_t i = 0
    while i <= n:
        c = s[i] if i < n else 32
        kind = CLASSES[c]
        if kind:
            if length == MAX_LETTERS:
                count = _close(read, count, &at, length, 0, &is_run, rest)
                length, upper, after_lower = 0, 0, False
            at[length] = kind
            length += 1
            if 65 <= c <= 90:
                if upper == 0:
                    after_lower = length > 1 and 97 <= s[i - 1] <= 122
                upper += 1
            else:
                upper = 0
        elif length and (c == 39 or c == 96):
            pass
        elif (
            c == 46 and length and (length == 1 or dotted)
            and i + 1 < n and CLASSES[s[i + 1]] and (i + 2 >= n or not CLASSES[s[i + 2]])
        ):
            dotted = True
        else:
            if length:
                k = 0
                if part_endings and upper >= 2 and upper < length and after_lower:
                    k = _find_entry(at + length - upper, upper)
                    k = upper if k and ENTRIES[k].ends else 0
                count = _close(read, count, &at, length, k, &is_run, rest)
            if c == 38:
                at[0], at[1], at[2] = 97, 110, 100
                count = _close(read, count, &at, 3, 0, &is_run, rest)
            length, upper, dotted, after_lower = 0, 0, False, False
        i += 1
    return count


cdef int _close(
    Read* read, int count, uint8_t** at, int length, int ending, bint* is_run, uint64_t* rest
) noexcept nogil:
    """One word is complete, its last `ending` letters a word of their own. Single letters in a row become one word."""
    cdef bint single = length == 1 and at[0][0] >= 97
    if single and is_run[0] and count and count < MAX_READ and read[count - 1].length < MAX_LETTERS:
        read[count - 1].length += 1
        at[0] += 1
        return count
    is_run[0] = single
    if count + 2 > MAX_READ:          # room for a word and its ending, or for neither
        rest[0] = hash_bytes(at[0], length, rest[0])
        is_run[0] = False
        return count
    read[count].text = at[0]
    read[count].length = length - ending
    count += 1
    if ending:
        read[count].text = at[0] + length - ending
        read[count].length = ending
        count += 1
    at[0] += length
    return count


cdef inline void _put(Words* out, const uint8_t* text, int length, int entry) noexcept nogil:
    cdef Word* word = &out.words[out.count]
    cdef int i
    cdef bint digits = True
    out.count += 1
    word.text = text
    word.length = <uint8_t>length
    word.mask = mask_of(text, length)
    if entry:
        word.kind = ENTRIES[entry].kind
        memcpy(word.weight, ENTRIES[entry].weight, 2)
        return
    for i in range(length):
        if text[i] >= 97:
            digits = False
            break
    word.kind = NUMBER if digits else FULL
    memcpy(word.weight, <uint8_t*>NUMBER_WEIGHT if digits else <uint8_t*>FULL_WEIGHT, 2)
    if not digits and length < N_LENGTHS:
        for i in range(2):
            word.weight[i] = <uint8_t>(word.weight[i] * LENGTHS[length] // 100)


cdef inline void _keep(Words* out, const uint8_t* text, int length, int entry, uint64_t* rest) noexcept nogil:
    if out.count < MAX_WORDS - 1:
        _put(out, text, length, entry)
    else:
        rest[0] = hash_bytes(text, length, rest[0])


cdef void _fold(Read* read, int count, bint keep_ignored, Words* out, uint64_t* rest) noexcept nogil:
    """Longest phrase of the table first, at each word."""
    cdef int i = 0, k, length, found, entry
    cdef uint32_t node
    out.count = 0
    while i < count:
        node, length, found = 0, 0, 0
        for k in range(i, count):
            if read[k].entry == 0:
                break
            node = _step(node, read[k].entry)
            if node == 0:
                break
            if RESULTS[node]:
                length, found = k + 1 - i, RESULTS[node]
        if length == 0:
            entry = read[i].entry
            if not (entry and ENTRIES[entry].ignored) or keep_ignored:
                _keep(out, read[i].text, read[i].length, entry, rest)
            i += 1
            continue
        i += length
        while REPLACEMENTS[found]:
            entry = REPLACEMENTS[found]
            if not ENTRIES[entry].ignored or keep_ignored:
                _keep(out, ENTRIES[entry].text, ENTRIES[entry].length, entry, rest)
            found += 1


cdef void _normalise(const uint8_t* s, Py_ssize_t n, bint person, Words* out) noexcept nogil:
    cdef Read[MAX_READ] read
    cdef uint64_t unread = 0, rest
    cdef int i, count
    cdef uint8_t* tail
    count = _read(s, n, not person, read, out.letters, &unread)
    for i in range(count):
        read[i].entry = _find_entry(read[i].text, read[i].length)
    rest = unread
    _fold(read, count, False, out, &rest)
    if out.count == 0:
        rest = unread
        _fold(read, count, True, out, &rest)
    if rest:
        tail = out.letters + MAX_READ * MAX_LETTERS
        for i in range(14):
            tail[i] = ALPHABET[rest % 26]
            rest //= 26
        _put(out, tail, 14, 0)


cdef dict _LATIN = {}                # character to its ASCII, at most as many as there are characters


cdef str _latin_of(str c):
    """A character of a decomposed text: ASCII letters, nothing for a mark, a space for what is no letter or digit."""
    category = unicodedata.category(c)
    if c.isascii():
        found = c
    elif unicodedata.combining(c):
        found = ""
    elif category[0] in "LNM":
        found = anyascii(c).replace("'", "").replace("`", "")
    else:
        found = "'" if anyascii(c) in ("'", "`") else "&" if anyascii(c) == "&" else " "
    _LATIN[c] = found
    return found


cdef str _latin(str text):
    cdef list parts = []
    cdef object found
    for c in unicodedata.normalize("NFKD", text):
        found = _LATIN.get(c)
        parts.append(found if found is not None else _latin_of(c))
    return "".join(parts)


cdef int normalise(str text, bint person, Words* out) except -1:
    """Fills `out`. Never fails for what the text is; person: names of persons have no legal form to part off."""
    cdef Py_ssize_t n
    if not text.isascii():
        text = _latin(text)
    cdef const char* s = PyUnicode_AsUTF8AndSize(text, &n)
    _normalise(<const uint8_t*>s, n, person, out)
    return 0


@cython.final
cdef class Name:
    """A name prepared for comparison, usable on any index and in any thread. Made by prepare()."""

    def __cinit__(self):
        self.words = <Words*>new_array(1, sizeof(Words))

    def __init__(self):
        raise TypeError("a Name is made by prepare()")

    def __dealloc__(self):
        free(self.words)

    def __repr__(self):
        return f"Name({self.text!r}: {' '.join(self.tokens())})"

    def tokens(self):
        """The words compared, in the order written."""
        return tuple(_text(&self.words.words[i]) for i in range(self.words.count))


cdef str _text(const Word* word):
    return (<const char*>word.text)[:word.length].decode("ascii")


def prepare(str text not None, schema=None):
    """A name made ready once. schema: as of core.entities, or None where it is not known."""
    cdef Name name = Name.__new__(Name)
    name.text = text
    name.person = _PERSON.get(schema, False)
    normalise(text, name.person is True, name.words)
    return name


def words_of(str text not None, bint person=False):
    """(word, kind, weight among persons, weight among organisations) for each word; weights in hundredths."""
    cdef Words* words = <Words*>new_array(1, sizeof(Words))
    try:
        normalise(text, person, words)
        return [
            (_text(&words.words[i]), _KINDS[words.words[i].kind], words.words[i].weight[1], words.words[i].weight[0])
            for i in range(words.count)
        ]
    finally:
        free(words)


cdef int _place_entry(uint32_t number) except -1:
    cdef uint32_t place = <uint32_t>hash_bytes(ENTRIES[number].text, ENTRIES[number].length, 1) & SLOT_MASK
    while SLOTS[place]:
        place = (place + 1) & SLOT_MASK
    SLOTS[place] = number
    return 0


def _fill_tables():
    global TEXT, ENTRIES, SLOTS, SLOT_MASK, STEPS, STEP_MASK, RESULTS, REPLACEMENTS, N_LENGTHS
    cdef uint32_t number, node, place, size
    cdef const char* letters
    words = {word for phrase in (*WORDS.phrases, *WORDS.phrases.values()) for word in phrase}
    words = sorted(words | set(WORDS.kinds) | WORDS.ignored)
    if len(words) >= 1 << 16 or len(WORDS.lengths) > <Py_ssize_t>sizeof(LENGTHS) or max(map(len, words)) > MAX_LETTERS:
        raise ValueError("the table of words is larger than the engine has room for")
    numbers = {word: i + 1 for i, word in enumerate(words)}
    TEXT = "".join(words).encode()
    letters = TEXT
    ENTRIES = <Entry*>new_array(len(words) + 1, sizeof(Entry))
    size = 1 << (2 * len(words)).bit_length()
    SLOTS, SLOT_MASK = <uint32_t*>new_array(size, sizeof(uint32_t)), size - 1
    for word, i in numbers.items():
        number = i
        ENTRIES[number].text = <const uint8_t*>letters
        ENTRIES[number].length = len(word)
        ENTRIES[number].kind = _KINDS.index("number" if word.isdigit() else WORDS.kinds.get(word, "full"))
        ENTRIES[number].weight[1], ENTRIES[number].weight[0] = WORDS.weight(word)
        ENTRIES[number].ignored = word in WORDS.ignored
        ENTRIES[number].ends = word in WORDS.legal_endings
        letters += len(word)
        _place_entry(number)
    steps, results, replacements = {}, {}, [0]
    for phrase, compared in WORDS.phrases.items():
        at = 0
        for word in phrase:
            at = steps.setdefault((at, numbers[word]), len(steps) + 1)
        results[at] = len(replacements)
        replacements += [*(numbers[word] for word in compared), 0]
    size = 1 << (2 * len(steps)).bit_length()
    STEPS, STEP_MASK = <Step*>new_array(size, sizeof(Step)), size - 1
    for (at, i), to in steps.items():
        node = at
        number = node << 16 | <uint32_t>i
        place = <uint32_t>((<uint64_t>number * MULTIPLIER) >> 40) & STEP_MASK
        while STEPS[place].key:
            place = (place + 1) & STEP_MASK
        STEPS[place].key = number
        STEPS[place].node = to
    RESULTS = <int*>new_array(len(steps) + 1, sizeof(int))
    for at, first in results.items():
        RESULTS[<Py_ssize_t>at] = first
    REPLACEMENTS = <int*>new_array(len(replacements), sizeof(int))
    for i, entry in enumerate(replacements):
        REPLACEMENTS[<Py_ssize_t>i] = entry
    N_LENGTHS = len(WORDS.lengths)
    for i, length in enumerate(WORDS.lengths):
        LENGTHS[<Py_ssize_t>i] = length
    FULL_WEIGHT[1], FULL_WEIGHT[0] = WORDS.weights["full"]
    NUMBER_WEIGHT[1], NUMBER_WEIGHT[0] = WORDS.weights["number"]
    for c in range(256):
        if 97 <= c <= 122 or 48 <= c <= 57:
            CLASSES[<Py_ssize_t>c] = c
        elif 65 <= c <= 90:
            CLASSES[<Py_ssize_t>c] = c + 32


_fill_tables()
