from libc.math cimport NAN, fabs, isfinite
from libc.stdint cimport uint32_t

cdef enum:
    N_STATEMENT = 23
    N_DISTRESS = 8

cdef struct Books:
    double current[N_STATEMENT]      # NaN = missing; flows scaled to twelve months
    double prior[N_STATEMENT]
    double gnp_index                 # of the year before the balance sheet; NaN = not in the table
    double dollars                   # US dollars for one unit of the currency; NaN = not in the table
    int listed                       # 1, 0 or -1 = missing
    int manufacturer

cdef struct Distress:
    double value[N_DISTRESS]         # NaN = cannot be computed
    uint32_t lacking[N_DISTRESS]     # bits into INPUTS[model]
    int chosen                       # the model that applies; -1 = none

cdef inline double amount(double x) noexcept nogil:
    """An amount as it enters a quotient: less than a billionth is nothing, so that no quotient can overflow."""
    return NAN if not isfinite(x) else 0.0 if fabs(x) < 1e-9 else x

cdef void compute_distress(const Books* books, Distress* out) noexcept nogil
cdef int count_statement_faults(const Books* books) noexcept nogil
cdef int zone_of(int model, double value) noexcept nogil
