from libc.stdint cimport int32_t, uint8_t

cimport cython

from core.features cimport Extractor
from core.kernel cimport Card, Outcome
from core.prepared cimport PreparedTexts
from core.ratios cimport Distress

cdef struct Work:                        # where one row is scored; borrowed from an Assessed
    double* row
    double* observed
    int32_t* points
    uint8_t* attributes
    Outcome* outcome


@cython.final
cdef class Scorer:
    cdef readonly object model
    cdef readonly Card card
    cdef readonly Extractor extractor
    cdef PreparedTexts texts             # of which answers are assembled
    cdef readonly int n_number_lines
    cdef readonly Py_ssize_t record_bytes   # the most that a record can have
    cdef char* scratch
    cdef Py_ssize_t capacity

    cdef char* _room(self, Py_ssize_t wanted) except NULL
    cdef int _restore_line(self, Assessed assessed, int i) except -1
    cdef int _check_distress(self, const Distress* distress) except -1


@cython.final
cdef class Assessed:
    cdef readonly Scorer scorer
    cdef readonly int as_of
    cdef Outcome outcome
    cdef Distress distress
    cdef double* row                     # features; `observed` holds what each characteristic saw of them
    cdef double* observed
    cdef int32_t* points
    cdef uint8_t* attributes

    cdef Work work(self) noexcept
    cdef char* _put_outcome(self, char* at)
    cdef char* _put_reasons(self, char* at, bint full)
    cdef char* _put_reason(self, char* at, int i)
    cdef char* _put_overrides(self, char* at)
    cdef char* _put_distress(self, char* at, bint full)
