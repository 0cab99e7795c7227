# Candidates for a name: the forms worth comparing.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from core.normal cimport MAX_WORDS, Word, Words
from core.snapshot cimport View

cdef enum:
    CANDIDATES = 64                  # forms compared for a name
    MAX_POSTINGS = 4096              # read for a name
    MAX_OPENED = 1024                # forms looked into for words whose postings were too many to read
    SLOTS = 2 * MAX_POSTINGS
    MAX_FOUND = 16                   # listed words taken for one word asked
    MAX_UNITS = 2 * MAX_WORDS        # words, and neighbours joined

cdef struct Found:
    uint32_t word
    int similarity                   # thousandths

cdef struct Unit:                    # a word of the name, or two neighbours, and the listed words it may be
    const Word* word                 # NULL for two neighbours
    uint8_t[2] weight
    int length
    int n_found
    Found[MAX_FOUND] found

cdef struct Reading:                 # one listed word to read the postings of
    uint8_t unit
    uint8_t place                    # among those found
    uint32_t frequency

cdef struct Slot:                    # what is known of a form while postings are read
    uint32_t form                    # + 1; 0 = empty
    uint32_t matched                 # thousandths of hundredths
    uint32_t weight                  # of the form
    uint64_t units                   # that it holds, bit by bit

cdef struct Candidate:
    uint32_t form
    double promise

cdef struct Search:                  # the memory of one search
    int n_units
    Unit[MAX_UNITS] units
    Slot[SLOTS] slots
    int n_readings
    Reading[MAX_UNITS * MAX_FOUND] readings
    int n_used
    uint32_t[MAX_POSTINGS] used
    int n_candidates
    Candidate[CANDIDATES] candidates

cdef void find_units(const View* view, const Words* name, Search* search) noexcept nogil
cdef void find_candidates(const View* view, const Words* name, bint person, double floor, Search* search) noexcept nogil
