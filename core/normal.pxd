# A name as it is compared: its words, in the order they were written.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    MAX_WORDS = 24                   # the last stands for all that follow
    MAX_LETTERS = 32                 # of a word; a longer one is cut into several
    MAX_READ = 96                    # words before folding

cdef enum Kind:
    FULL
    LEGAL_FORM
    COMMON
    PARTICLE
    TITLE
    NUMBER                           # digits
    NUMERAL                          # Roman: a number in names of organisations, a word in names of persons

cdef struct Word:
    const uint8_t* text              # a-z and 0-9; the table's own letters or the name's, valid as long as the name is
    uint32_t mask                    # which of 32 classes of letters are in it
    uint8_t length
    uint8_t kind
    uint8_t[2] weight                # hundredths, as an organisation's and as a person's

cdef struct Words:
    int count
    Word[MAX_WORDS] words
    uint8_t[MAX_READ * MAX_LETTERS + MAX_LETTERS] letters

cdef class Name:
    cdef readonly str text
    cdef readonly object person
    cdef Words* words

cdef int normalise(str text, bint person, Words* out) except -1
cdef uint64_t hash_bytes(const uint8_t* text, Py_ssize_t length, uint64_t seed) noexcept nogil
cdef uint32_t mask_of(const uint8_t* text, int length) noexcept nogil


cdef inline bint is_number(const Word* word, bint person) noexcept nogil:
    return word.kind == NUMBER or (word.kind == NUMERAL and not person)
