cimport cython
from libc.stdint cimport int32_t, uint8_t, uint64_t

cdef enum:
    N_CATEGORIES = 7

cdef struct Line:                    # one characteristic
    int32_t feature                  # column of the row
    int32_t is_category
    int32_t first_bound, n_bounds    # numbers: the bin is the count of bounds <= x
    int32_t first_bin, n_bins        # into `attribute_of`: bin (or value code) -> attribute
    int32_t first_attribute          # into `points_of` and `unknown`
    int32_t missing, not_applicable  # attributes; not_applicable is -1 where there is none
    int32_t rule                     # -1: always applies
    int32_t chosen                   # 1: applies only where the rule holds; 0: only where it does not
    int32_t category, required
    int32_t group                    # exclusive group, -1 = none
    int32_t best, worst              # hundredths

cdef struct Term:                    # a condition on one feature
    int32_t feature
    int32_t missing                  # whether a missing feature meets it
    int32_t first_interval, n_intervals
    uint64_t codes                   # values that meet it, by code

cdef struct Alternative:             # terms that must hold together
    int32_t first_term, n_terms
    int32_t required_missing         # bit per category, 0 = not asked

cdef struct Rule:                    # any of its alternatives
    int32_t first_alternative, n_alternatives

cdef struct Floor:
    int32_t category, points, level

cdef struct Override:
    int32_t rule, floor, decision

cdef struct Group:
    int32_t best, worst

cdef struct Outcome:
    int32_t score, low, high         # hundredths; low and high: every missing characteristic at its best and worst
    int32_t known, weight            # completeness = known / weight
    int32_t categories[N_CATEGORIES]
    uint64_t overrides, floors       # bit per rule that held
    int32_t level, decision


@cython.final
cdef class Card:
    cdef Line* lines
    cdef int32_t n_lines
    cdef readonly int n_features, n_characteristics
    cdef double* bounds
    cdef uint8_t* attribute_of
    cdef int32_t* points_of
    cdef uint8_t* unknown
    cdef Rule* rules
    cdef Alternative* alternatives
    cdef Term* terms
    cdef double* intervals
    cdef Floor* floors
    cdef int32_t n_floors
    cdef Override* overrides
    cdef int32_t n_overrides
    cdef Group* groups
    cdef int32_t n_groups
    cdef int32_t base, weight
    cdef int32_t bands[4]
    cdef int32_t decisions[4]

    cdef int32_t choose(self, const Line* line, double x) noexcept nogil
    cdef void score(self, const double* row, int32_t* points, uint8_t* attributes) noexcept nogil
    cdef void conclude(
        self, const double* row, const int32_t* points, const uint8_t* attributes, Outcome* out
    ) noexcept nogil
    cdef void sum_up(self, const int32_t* points, const uint8_t* attributes, Outcome* out) noexcept nogil
    cdef void decide(self, Outcome* out) noexcept nogil
    cdef bint holds(self, int32_t rule, const double* row, int32_t required_missing) noexcept nogil
