# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Keys under which words that are written differently meet: all but one of their letters, or their consonants."""

from libc.string cimport memcpy

__all__ = ["skeleton"]

# Consonants that transliterations use for one another; a vowel, h, w or y counts only as the first letter.
_CLASSES = {"k": "ckqg", "s": "szx", "t": "td", "p": "bp", "f": "fv", "j": "j", "m": "m", "n": "n", "l": "l", "r": "r"}

cdef uint8_t[256] CLASS
for _letter, _members in _CLASSES.items():
    for _member in _members:
        CLASS[<int>ord(_member)] = ord(_letter)
for _digit in "0123456789":
    CLASS[<int>ord(_digit)] = ord(_digit)


cdef int variants(const uint8_t* text, int length, uint64_t* out) noexcept nogil:
    """Hashes of the word and, where it is long enough, of what is left without one letter; returns how many."""
    cdef uint8_t[MAX_LETTERS] rest
    cdef int i, count = 1
    out[0] = word_hash(text, length)
    if length < LEAST_NEAR:
        return count
    memcpy(rest, text + 1, length - 1)
    for i in range(length):
        if i:
            rest[i - 1] = text[i - 1]
            if text[i] == text[i - 1]:
                continue
        out[count] = word_hash(rest, length - 1)
        count += 1
    return count


cdef int _skeleton(const uint8_t* text, int length, uint8_t* out) noexcept nogil:
    cdef int i, n = 1
    cdef uint8_t c
    c = CLASS[text[0]]
    out[0] = c if c else 97 if text[0] != 119 and text[0] != 104 else text[0]
    for i in range(1, length):
        c = CLASS[text[i]]
        if c and c != CLASS[text[i - 1]]:
            out[n] = c
            n += 1
    return n


cdef uint64_t skeleton_hash(const uint8_t* text, int length) noexcept nogil:
    """0 where the word is too short to have one."""
    cdef uint8_t[MAX_LETTERS] found
    cdef int n
    if length < LEAST_SKELETON:
        return 0
    n = _skeleton(text, length, found)
    return hash_bytes(found, n, 13) if n > 1 else 0


def skeleton(str word not None):
    """The consonants under which a word is filed, '' where it is too short: `mohammed` and `muhamad` are `mmt`."""
    cdef uint8_t[MAX_LETTERS] found
    text = word.encode("ascii")
    if not LEAST_SKELETON <= len(text) <= MAX_LETTERS:
        return ""
    n = _skeleton(text, len(text), found)
    return (<char*>found)[:n].decode("ascii") if n > 1 else ""
