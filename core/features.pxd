from cpython.object cimport PyObject
cimport cython
from libc.stdint cimport int32_t, uint8_t, uint64_t

from core.fields cimport Slot
from core.ratios cimport N_STATEMENT, Books, Distress

cdef enum:
    MAX_NODES = 32                   # structs of profile and evidence
    MAX_COUNTRY_FIELDS = 16
    FEW_COUNTRIES = 64               # of one profile, without an allocation

cdef struct Node:                    # a struct inside profile or evidence
    int32_t parent
    Slot slot
    PyObject* type

cdef struct Source:                  # where countries, dates or codes are read
    int32_t node
    Slot slot
    bint is_list
    bint in_member
    Slot member
    const char* shape                # of a code; NULL for countries and dates

cdef struct Found:                   # what one country field of a profile holds
    int32_t first, count             # into Countries.numbers
    bint unknown                     # a member, or the whole, is missing

cdef struct Countries:               # the countries of one profile, by number
    Found found[MAX_COUNTRY_FIELDS]
    int32_t few[FEW_COUNTRIES]
    int32_t* numbers                 # `few`, or allocated
    int32_t count, capacity

cdef struct Where:                   # a condition on a list's member
    Slot slot
    int32_t kind
    bint missing
    int32_t first_interval, n_intervals
    uint64_t codes
    PyObject* values                 # dict of a category's codes

cdef struct Linear:                  # factor times place in the two statements laid end to end
    double factor
    int32_t place

cdef struct Op:                      # one feature
    int32_t kind
    int32_t node
    Slot slot
    bint has_member
    Slot member
    PyObject* values
    int32_t first, count             # members, sources, given slots, or terms of a numerator
    int32_t first_where, n_where
    int32_t n_denominator
    const uint8_t* ranks
    int32_t unknown_below
    int32_t distress


@cython.final
cdef class Extractor:
    cdef readonly int n_features
    cdef readonly object plan, catalogue
    cdef list _kept
    cdef dict _country_index, _industry_cache, _gnp_index, _fx
    cdef PyObject* roots[2]
    cdef Node* nodes
    cdef int32_t n_nodes
    cdef Source* countries
    cdef int32_t n_countries
    cdef Source* checked             # dates and codes
    cdef int32_t n_checked
    cdef Where* wheres
    cdef double* intervals
    cdef int32_t* op_sources
    cdef Node* given
    cdef Linear* linears
    cdef Op* members                 # fields of features that choose between several
    cdef Op* ops
    cdef Slot* statement_slots       # N_STATEMENT amounts, then period_months
    cdef uint8_t[N_STATEMENT] is_flow
    cdef Slot listed, manufacturer, currency, period_end
    cdef int32_t financials_node, current_node, prior_node
    cdef int32_t industry_node
    cdef Slot industry, industry_scheme, industry_code
    cdef int32_t shares_node
    cdef Slot owners, share_pct

    cdef int fill(
        self, object profile, object findings, int as_of, double* row, Books* books, Distress* distress
    ) except -1
    cdef int _fill(
        self, object profile, object findings, int as_of, double* row, Books* books, Distress* distress,
        Countries* countries
    ) except -1
    cdef int _locate(self, object profile, object findings, PyObject** at) except -1
    cdef double _field(self, const Op* op, PyObject** at, int as_of) except? -7.0
    cdef double _of_several(self, const Op* op, PyObject** at, int as_of) except? -7.0
    cdef bint _read_countries(self, PyObject** at, Countries* out) except -1
    cdef bint _values_can_be(self, PyObject** at, int last) except -1
    cdef bint _shares_add_up(self, PyObject** at) except -1
    cdef int _industry_number(self, PyObject** at) except -3
    cdef int _read_books(self, PyObject** at, Books* books) except -1
    cdef int _read_statement(self, PyObject* statement, double* out) except -1
    cdef double _over_list(self, const Op* op, PyObject** at) except? -7.0
    cdef bint _meets(self, const Op* op, PyObject* member) except -1
    cdef double _worst(self, const Op* op, const Countries* countries) noexcept
    cdef double _linear(self, int32_t first, int32_t count, const Books* books) noexcept
    cdef double _ratio(self, const Op* op, const Books* books) noexcept
    cdef int _country_number(self, PyObject* text) except -2
    cdef int _plan_source(self, Source* out, source) except -1
    cdef int _plan_ops(self, ops) except -1
    cdef int _plan_value(self, Op* out, op) except -1
