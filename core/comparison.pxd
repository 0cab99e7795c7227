# Two names compared word by word.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from core.normal cimport MAX_LETTERS, MAX_WORDS, Word

cdef enum:
    MAX_WHOLE = MAX_WORDS * (MAX_LETTERS + 1)
    BLOCKS = (MAX_WHOLE + 63) // 64
    SYMBOLS = 37
    CLEARLY_SIMILAR = 700            # thousandths; words less alike than this are two words

cdef enum Joined:
    NEITHER
    FIRST                            # two neighbours of the first name against one word of the second
    SECOND

cdef double NUMBERS_DIFFER
cdef double BELOW_EQUAL

cdef struct Pair:
    int similarity                   # thousandths; 1000 = equal
    uint8_t a                        # places in the names; of the first of two neighbours where they are joined
    uint8_t b
    uint8_t joined
    int weight

cdef struct Outcome:                 # what an explanation tells
    int n_pairs
    Pair[MAX_WORDS] pairs
    bint[MAX_WORDS] left_a
    bint[MAX_WORDS] left_b
    bint numbers_differ
    bint equal
    double whole                     # likeness of the sorted names, -1 where it does not count

cdef struct Whole:                   # a name's words sorted and joined, and where each letter stands in it, bit by bit
    int length
    int n_blocks
    uint8_t[MAX_WHOLE] text
    uint64_t[SYMBOLS * BLOCKS] places

cdef void make_whole(const Word* words, int count, Whole* out) noexcept nogil
cdef double compare_words(
    const Word* a, int n_a, const Whole* whole_a, const Word* b, int n_b, bint person, double floor, Outcome* out
) noexcept nogil
cdef int similarity_of(const uint8_t* a, int n_a, const uint8_t* b, int n_b, int least) noexcept nogil
cdef double rounded(double score) noexcept nogil
cdef bint may_be_similar(uint32_t mask_a, uint32_t mask_b, int n_a, int n_b, int least) noexcept nogil
cdef double bound_of(int matched, int weight, int letters, int all_letters, bint person) noexcept nogil
cdef double words_score(int64_t matched, int64_t unlike, int64_t extra, bint person) noexcept nogil
cdef double promise_of(int64_t matched, int64_t asked, int64_t listed, bint person) noexcept nogil
cdef int least_similar(int n_a, int n_b) noexcept nogil
