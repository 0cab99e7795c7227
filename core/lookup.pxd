# Candidates for a name: the forms worth comparing.

from libc.stdint cimport uint8_t, uint32_t

from core.normal cimport MAX_WORDS, Word, Words
from core.snapshot cimport View

cdef enum:
    CANDIDATES = 64                  # forms compared for a name
    MAX_POSTINGS = 4096              # read for a name
    SLOTS = 2 * MAX_POSTINGS
    MAX_FOUND = 32                   # listed words taken for one word asked
    MAX_UNITS = 2 * MAX_WORDS        # words, and neighbours joined

cdef struct Found:
    uint32_t word
    int similarity                   # thousandths

cdef struct Unit:                    # a word of the name, or two neighbours, and the listed words it may be
    uint8_t[2] weight
    bint joined
    int length
    uint32_t frequency               # postings of all words found
    int n_found
    Found[MAX_FOUND] found

cdef struct Slot:                    # what is known of a form while postings are read
    uint32_t form                    # + 1; 0 = empty
    uint32_t matched                 # thousandths of hundredths
    uint32_t weight                  # of the form
    int unit                         # that was read last

cdef struct Candidate:
    uint32_t form
    double promise

cdef struct Search:                  # the memory of one search
    int n_units
    Unit[MAX_UNITS] units
    Slot[SLOTS] slots
    int n_used
    uint32_t[MAX_POSTINGS] used
    int n_candidates
    Candidate[CANDIDATES] candidates

cdef void find_units(const View* view, const Words* name, Search* search) noexcept nogil
cdef void find_candidates(const View* view, const Words* name, bint person, double floor, Search* search) noexcept nogil
