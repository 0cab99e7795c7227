# The hashes under which an index files words, forms, ids and identifiers, and under which a search looks them up.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from core.normal cimport MAX_LETTERS, Word, hash_bytes

cdef enum:
    LEAST_NEAR = 3                   # letters of a word that is also looked up without one of them
    LEAST_SKELETON = 4               # letters of a word that is also looked up by its consonants
    MAX_VARIANTS = MAX_LETTERS + 1


cdef inline uint64_t word_hash(const uint8_t* text, int length) noexcept nogil:
    return hash_bytes(text, length, 3)


cdef inline uint64_t joined_hash(const uint8_t* text, int length) noexcept nogil:
    return hash_bytes(text, length, 5)


cdef inline uint64_t id_hash(const uint8_t* text, Py_ssize_t length) noexcept nogil:
    return hash_bytes(text, length, 7)


cdef inline uint64_t form_hash(const Word* words, int count) noexcept nogil:
    """Of all words, whatever their order."""
    cdef uint64_t total = 0
    cdef int i
    for i in range(count):
        total += word_hash(words[i].text, words[i].length)
    return hash_bytes(<const uint8_t*>&total, 8, 11)


cdef int variants(const uint8_t* text, int length, uint64_t* out) noexcept nogil
cdef uint64_t skeleton_hash(const uint8_t* text, int length) noexcept nogil
