# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Financial distress models over two statements, and the identities that a statement must keep.

Amounts are in one currency. A missing input, or a divisor that is zero or negative, makes a value missing (NaN), never
infinite.
Sources: Altman 1968, 1983, 1995; Zmijewski 1984; Ohlson 1980; Springate 1978; Beneish 1999; Piotroski 2000.
"""

from libc.math cimport NAN, fabs, isfinite, isnan, log
from libc.stdint cimport uint32_t

__all__ = [
    "FLOW_FIELDS",
    "INPUTS",
    "MODELS",
    "STATEMENT_FIELDS",
    "ZONES",
    "altman_z",
    "beneish_m",
    "distress",
    "springate",
]

STATEMENT_FIELDS = (
    "total_assets", "current_assets", "cash", "receivables", "inventories", "fixed_assets", "current_liabilities",
    "long_term_liabilities", "total_liabilities", "retained_earnings", "revenue", "cost_of_sales", "gross_profit",
    "sga_expense", "operating_expenses", "depreciation", "ebit", "interest_expense", "ebt", "net_income",
    "operating_cash_flow", "market_value_of_equity", "shares_outstanding",
)
FLOW_FIELDS = STATEMENT_FIELDS[10:21]

cdef enum:
    TOTAL_ASSETS, CURRENT_ASSETS, CASH, RECEIVABLES, INVENTORIES, FIXED_ASSETS, CURRENT_LIABILITIES
    LONG_TERM_LIABILITIES, TOTAL_LIABILITIES, RETAINED_EARNINGS, REVENUE, COST_OF_SALES, GROSS_PROFIT
    SGA_EXPENSE, OPERATING_EXPENSES, DEPRECIATION, EBIT, INTEREST_EXPENSE, EBT, NET_INCOME
    OPERATING_CASH_FLOW, MARKET_VALUE_OF_EQUITY, SHARES_OUTSTANDING

cdef enum:
    ALTMAN_Z, ALTMAN_Z_PRIME, ALTMAN_Z_DOUBLE_PRIME, ZMIJEWSKI, OHLSON_O, SPRINGATE, BENEISH_M, PIOTROSKI_F

MODELS = (
    "altman_z", "altman_z_prime", "altman_z_double_prime", "zmijewski",
    "ohlson_o", "springate", "beneish_m", "piotroski_f",
)
INPUTS = {
    "altman_z": (
        "total_assets", "current_assets", "current_liabilities", "retained_earnings", "ebit", "market_value_of_equity",
        "total_liabilities", "revenue",
    ),
    "altman_z_prime": (
        "total_assets", "current_assets", "current_liabilities", "retained_earnings", "ebit", "total_liabilities",
        "revenue",
    ),
    "altman_z_double_prime": (
        "total_assets", "current_assets", "current_liabilities", "retained_earnings", "ebit", "total_liabilities",
    ),
    "zmijewski": ("total_assets", "net_income", "total_liabilities", "current_assets", "current_liabilities"),
    "ohlson_o": (
        "total_assets", "gnp_index", "fx", "total_liabilities", "current_assets", "current_liabilities", "net_income",
        "depreciation", "prior.net_income",
    ),
    "springate": ("total_assets", "current_assets", "current_liabilities", "ebit", "ebt", "revenue"),
    "beneish_m": (
        "receivables", "revenue", "prior.receivables", "prior.revenue", "gross_profit", "prior.gross_profit",
        "current_assets", "fixed_assets", "total_assets", "prior.current_assets", "prior.fixed_assets",
        "prior.total_assets", "depreciation", "prior.depreciation", "sga_expense", "prior.sga_expense", "net_income",
        "operating_cash_flow", "long_term_liabilities", "current_liabilities", "prior.long_term_liabilities",
        "prior.current_liabilities",
    ),
    "piotroski_f": (
        "total_assets", "net_income", "operating_cash_flow", "prior.total_assets", "prior.net_income",
        "long_term_liabilities", "prior.long_term_liabilities", "current_assets", "current_liabilities",
        "prior.current_assets", "prior.current_liabilities", "shares_outstanding", "prior.shares_outstanding",
        "gross_profit", "prior.gross_profit", "revenue", "prior.revenue",
    ),
}
ZONES = {
    **dict.fromkeys(MODELS[:6], ("safe", "grey", "distress")),
    "beneish_m": ("not_flagged", "grey", "flagged"),
    "piotroski_f": ("strong", "middle", "weak"),
}
# ln(.038 / .962): Ohlson's cut-off on the probability, as a bound on O itself
cdef double OHLSON_CUT_OFF = log(0.038 / 0.962)

# The share by which two sides of an identity may differ: statements are printed in rounded thousands.
cdef double IDENTITY_TOLERANCE = 0.01


cdef inline double _known(double value, int bit, uint32_t* lacking) noexcept nogil:
    if isnan(value):
        lacking[0] |= 1u << bit
    return value


cdef inline double _divisor(double value, int bit, uint32_t* lacking) noexcept nogil:
    if value > 0:
        return value
    lacking[0] |= 1u << bit
    return NAN


cdef inline double _quotient(double numerator, double denominator) noexcept nogil:
    return numerator / denominator if denominator > 0 else NAN


cdef inline double _gross(const double* s) noexcept nogil:
    """Gross profit as given, else revenue less cost of sales."""
    return s[REVENUE] - s[COST_OF_SALES] if isnan(s[GROSS_PROFIT]) else s[GROSS_PROFIT]


cdef inline double _z(
    double wc_ta, double re_ta, double ebit_ta, double mve_tl, double s_ta, double sales_coefficient
) noexcept nogil:
    return 1.2 * wc_ta + 1.4 * re_ta + 3.3 * ebit_ta + 0.6 * mve_tl + sales_coefficient * s_ta


cdef inline double _z_prime(double wc_ta, double re_ta, double ebit_ta, double bve_tl, double s_ta) noexcept nogil:
    return 0.717 * wc_ta + 0.847 * re_ta + 3.107 * ebit_ta + 0.420 * bve_tl + 0.998 * s_ta


cdef inline double _z_double_prime(double wc_ta, double re_ta, double ebit_ta, double bve_tl) noexcept nogil:
    return 6.56 * wc_ta + 3.26 * re_ta + 6.72 * ebit_ta + 1.05 * bve_tl


cdef inline double _zmijewski(double ni_ta, double tl_ta, double ca_cl) noexcept nogil:
    return -4.336 - 4.513 * ni_ta + 5.679 * tl_ta + 0.004 * ca_cl


cdef inline double _springate(double wc_ta, double ebit_ta, double ebt_cl, double s_ta) noexcept nogil:
    return 1.03 * wc_ta + 3.07 * ebit_ta + 0.66 * ebt_cl + 0.4 * s_ta


cdef inline double _beneish(
    double dsri, double gmi, double aqi, double sgi, double depi, double sgai, double tata, double lvgi
) noexcept nogil:
    return (
        -4.84 + 0.92 * dsri + 0.528 * gmi + 0.404 * aqi + 0.892 * sgi + 0.115 * depi - 0.172 * sgai + 4.679 * tata
        - 0.327 * lvgi
    )


cdef void _altman(const double* s, Distress* out) noexcept nogil:
    cdef uint32_t* lacking = &out.lacking[ALTMAN_Z]
    cdef double ta = s[TOTAL_ASSETS], tl = s[TOTAL_LIABILITIES]
    cdef double wc_ta, re_ta, ebit_ta, bve_tl, s_ta
    wc_ta = _quotient(s[CURRENT_ASSETS] - s[CURRENT_LIABILITIES], ta)
    re_ta = _quotient(s[RETAINED_EARNINGS], ta)
    ebit_ta = _quotient(s[EBIT], ta)
    bve_tl = _quotient(ta - tl, tl)
    s_ta = _quotient(s[REVENUE], ta)
    out.value[ALTMAN_Z] = _z(wc_ta, re_ta, ebit_ta, _quotient(s[MARKET_VALUE_OF_EQUITY], tl), s_ta, 0.999)
    _divisor(ta, 0, lacking)
    _known(s[CURRENT_ASSETS], 1, lacking)
    _known(s[CURRENT_LIABILITIES], 2, lacking)
    _known(s[RETAINED_EARNINGS], 3, lacking)
    _known(s[EBIT], 4, lacking)
    _known(s[MARKET_VALUE_OF_EQUITY], 5, lacking)
    _divisor(tl, 6, lacking)
    _known(s[REVENUE], 7, lacking)
    out.value[ALTMAN_Z_PRIME] = _z_prime(wc_ta, re_ta, ebit_ta, bve_tl, s_ta)
    # the inputs of the two later models are those of the first without the market value; the last also without revenue
    out.lacking[ALTMAN_Z_PRIME] = (lacking[0] & 0x1F) | ((lacking[0] >> 1) & 0x60)
    out.value[ALTMAN_Z_DOUBLE_PRIME] = _z_double_prime(wc_ta, re_ta, ebit_ta, bve_tl)
    out.lacking[ALTMAN_Z_DOUBLE_PRIME] = out.lacking[ALTMAN_Z_PRIME] & 0x3F


cdef void _zmijewski_of(const double* s, Distress* out) noexcept nogil:
    cdef uint32_t* lacking = &out.lacking[ZMIJEWSKI]
    cdef double ta = _divisor(s[TOTAL_ASSETS], 0, lacking)
    cdef double ni = _known(s[NET_INCOME], 1, lacking)
    cdef double tl = _known(s[TOTAL_LIABILITIES], 2, lacking)
    cdef double ca = _known(s[CURRENT_ASSETS], 3, lacking)
    cdef double cl = _divisor(s[CURRENT_LIABILITIES], 4, lacking)
    cdef double ca_cl = ca / cl
    out.value[ZMIJEWSKI] = _zmijewski(ni / ta, tl / ta, 0.0 if isnan(ca_cl) else ca_cl)


cdef void _ohlson_of(const Books* books, Distress* out) noexcept nogil:
    cdef const double* s = &books.current[0]
    cdef uint32_t* lacking = &out.lacking[OHLSON_O]
    cdef double ta = _divisor(s[TOTAL_ASSETS], 0, lacking)
    cdef double index = _divisor(books.gnp_index, 1, lacking)
    cdef double dollars = _divisor(books.dollars, 2, lacking)
    cdef double tl = _divisor(s[TOTAL_LIABILITIES], 3, lacking)
    cdef double ca = _divisor(s[CURRENT_ASSETS], 4, lacking)
    cdef double cl = _known(s[CURRENT_LIABILITIES], 5, lacking)
    cdef double ni = _known(s[NET_INCOME], 6, lacking)
    cdef double ffo = ni + _known(s[DEPRECIATION], 7, lacking)
    cdef double before = _known(books.prior[NET_INCOME], 8, lacking)
    cdef double change = _divisor_unless_missing(fabs(ni) + fabs(before), 8, lacking)
    out.value[OHLSON_O] = NAN if lacking[0] else (
        -1.32 - 0.407 * log(ta * dollars / index) + 6.03 * (tl / ta) - 1.43 * ((ca - cl) / ta) + 0.0757 * (cl / ca)
        - (1.72 if tl > ta else 0.0) - 2.37 * (ni / ta) - 1.83 * (ffo / tl)
        + (0.285 if ni < 0 and before < 0 else 0.0) - 0.521 * ((ni - before) / change)
    )


cdef void _springate_of(const double* s, Distress* out) noexcept nogil:
    cdef uint32_t* lacking = &out.lacking[SPRINGATE]
    cdef double ta = _divisor(s[TOTAL_ASSETS], 0, lacking)
    cdef double ca = _known(s[CURRENT_ASSETS], 1, lacking)
    cdef double cl = _divisor(s[CURRENT_LIABILITIES], 2, lacking)
    cdef double ebit = _known(s[EBIT], 3, lacking)
    cdef double ebt = _known(s[EBT], 4, lacking)
    out.value[SPRINGATE] = _springate((ca - cl) / ta, ebit / ta, ebt / cl, _known(s[REVENUE], 5, lacking) / ta)


cdef void _beneish_of(const double* c, const double* p, Distress* out) noexcept nogil:
    cdef uint32_t* lacking = &out.lacking[BENEISH_M]
    cdef double rev = _divisor(c[REVENUE], 1, lacking), rev_p = _divisor(p[REVENUE], 3, lacking)
    cdef double ta = _divisor(c[TOTAL_ASSETS], 8, lacking), ta_p = _divisor(p[TOTAL_ASSETS], 11, lacking)
    cdef double gross = _divisor(_gross(c), 4, lacking), gross_p = _known(_gross(p), 5, lacking)
    cdef double ppe = _known(c[FIXED_ASSETS], 7, lacking), ppe_p = _known(p[FIXED_ASSETS], 10, lacking)
    cdef double dep = _divisor(c[DEPRECIATION], 12, lacking), dep_p = _known(p[DEPRECIATION], 13, lacking)
    cdef double hard = _known(c[CURRENT_ASSETS], 6, lacking) + ppe
    cdef double hard_p = _known(p[CURRENT_ASSETS], 9, lacking) + ppe_p
    cdef double debt = _known(c[LONG_TERM_LIABILITIES], 18, lacking) + _known(c[CURRENT_LIABILITIES], 19, lacking)
    cdef double debt_p = _known(p[LONG_TERM_LIABILITIES], 20, lacking) + _known(p[CURRENT_LIABILITIES], 21, lacking)
    cdef double tata = (_known(c[NET_INCOME], 16, lacking) - _known(c[OPERATING_CASH_FLOW], 17, lacking)) / ta
    cdef double days = _known(c[RECEIVABLES], 0, lacking) / rev, days_p = _known(p[RECEIVABLES], 2, lacking) / rev_p
    cdef double dsri = days / _divisor_unless_missing(days_p, 2, lacking)
    cdef double gmi = (gross_p / rev_p) / (gross / rev)
    cdef double aqi = (1 - hard / ta) / _divisor_unless_missing(1 - hard_p / ta_p, 10, lacking)
    cdef double rate = dep / _divisor_unless_missing(dep + ppe, 7, lacking)
    cdef double depi = (dep_p / _divisor_unless_missing(dep_p + ppe_p, 13, lacking)) / rate
    cdef double sga = _known(c[SGA_EXPENSE], 14, lacking) / rev, sga_p = _known(p[SGA_EXPENSE], 15, lacking) / rev_p
    cdef double sgai = sga / _divisor_unless_missing(sga_p, 15, lacking)
    cdef double lvgi = (debt / ta) / _divisor_unless_missing(debt_p / ta_p, 21, lacking)
    out.value[BENEISH_M] = _beneish(dsri, gmi, aqi, rev / rev_p, depi, sgai, tata, lvgi)


cdef inline double _divisor_unless_missing(double value, int bit, uint32_t* lacking) noexcept nogil:
    """A computed divisor: where it is missing its own inputs were named already."""
    return value if isnan(value) else _divisor(value, bit, lacking)


cdef void _piotroski_of(const double* c, const double* p, Distress* out) noexcept nogil:
    cdef uint32_t* lacking = &out.lacking[PIOTROSKI_F]
    cdef double ta = _divisor(c[TOTAL_ASSETS], 0, lacking), ta_p = _divisor(p[TOTAL_ASSETS], 3, lacking)
    cdef double roa = _known(c[NET_INCOME], 1, lacking) / ta, roa_p = _known(p[NET_INCOME], 4, lacking) / ta_p
    cdef double cfo = _known(c[OPERATING_CASH_FLOW], 2, lacking) / ta
    cdef double debt = _known(c[LONG_TERM_LIABILITIES], 5, lacking) / ta
    cdef double debt_p = _known(p[LONG_TERM_LIABILITIES], 6, lacking) / ta_p
    cdef double liquid = _known(c[CURRENT_ASSETS], 7, lacking) / _divisor(c[CURRENT_LIABILITIES], 8, lacking)
    cdef double liquid_p = _known(p[CURRENT_ASSETS], 9, lacking) / _divisor(p[CURRENT_LIABILITIES], 10, lacking)
    cdef double shares = _known(c[SHARES_OUTSTANDING], 11, lacking)
    cdef double shares_p = _known(p[SHARES_OUTSTANDING], 12, lacking)
    cdef double rev = _divisor(c[REVENUE], 15, lacking), rev_p = _divisor(p[REVENUE], 16, lacking)
    cdef double margin = _known(_gross(c), 13, lacking) / rev, margin_p = _known(_gross(p), 14, lacking) / rev_p
    out.value[PIOTROSKI_F] = NAN if lacking[0] else (
        (roa > 0) + (cfo > 0) + (roa > roa_p) + (cfo > roa) + (debt < debt_p) + (liquid > liquid_p)
        + (shares <= shares_p) + (margin > margin_p) + (rev / ta > rev_p / ta_p)
    )


cdef void compute_distress(const Books* books, Distress* out) noexcept nogil:
    """All eight models, what each lacks, and which of the first four applies (-1: none).

    A listed manufacturer has Z, a private one Z', everyone else and the unknown Z''; where that cannot be computed,
    Zmijewski.
    """
    cdef int model
    for model in range(N_DISTRESS):
        out.lacking[model] = 0
    _altman(books.current, out)
    _zmijewski_of(books.current, out)
    _ohlson_of(books, out)
    _springate_of(books.current, out)
    _beneish_of(books.current, books.prior, out)
    _piotroski_of(books.current, books.prior, out)
    for model in range(N_DISTRESS):
        if not isfinite(out.value[model]):
            out.value[model] = NAN
    out.chosen = ALTMAN_Z_DOUBLE_PRIME
    if books.manufacturer == 1 and books.listed >= 0:
        out.chosen = ALTMAN_Z if books.listed == 1 else ALTMAN_Z_PRIME
    if isnan(out.value[out.chosen]):
        out.chosen = -1 if isnan(out.value[ZMIJEWSKI]) else ZMIJEWSKI


cdef int zone_of(int model, double value) noexcept nogil:
    """0 safe, 1 grey, 2 distress (an index into ZONES); -1 where the value is missing."""
    if isnan(value):
        return -1
    if model == ALTMAN_Z:
        return 2 if value < 1.81 else 0 if value > 2.99 else 1
    if model == ALTMAN_Z_PRIME:
        return 2 if value < 1.23 else 0 if value > 2.90 else 1
    if model == ALTMAN_Z_DOUBLE_PRIME:
        return 2 if value < 1.1 else 0 if value > 2.6 else 1
    if model == ZMIJEWSKI:
        return 2 if value > 0 else 0
    if model == OHLSON_O:
        return 2 if value > OHLSON_CUT_OFF else 0
    if model == SPRINGATE:
        return 2 if value < 0.862 else 0
    if model == BENEISH_M:
        return 2 if value > -1.78 else 0
    return 0 if value >= 8 else 2 if value <= 1 else 1


cdef inline int _differs(double left, double right) noexcept nogil:
    """1 where both sides are known and further apart than the tolerance."""
    cdef double largest = fabs(left) if fabs(left) > fabs(right) else fabs(right)
    return fabs(left - right) > IDENTITY_TOLERANCE * largest


cdef inline int _exceeds(double part, double whole) noexcept nogil:
    """1 where both are known and a part is larger than its whole by more than the tolerance."""
    return part > whole and _differs(part, whole)


cdef inline double _or_zero(double value) noexcept nogil:
    return 0.0 if isnan(value) else value


cdef int _faults_of(const double* s, int* checked) noexcept nogil:
    # Liquid assets are a sum of what is given: it can be found too large, but never found right.
    cdef double liquid = _or_zero(s[CASH]) + _or_zero(s[RECEIVABLES]) + _or_zero(s[INVENTORIES])
    checked[0] += not isnan(s[CURRENT_ASSETS]) and not isnan(s[TOTAL_ASSETS])
    checked[0] += not isnan(s[CURRENT_LIABILITIES]) and not isnan(s[TOTAL_LIABILITIES])
    checked[0] += not isnan(s[GROSS_PROFIT] + s[REVENUE] + s[COST_OF_SALES])
    return (
        _exceeds(s[CURRENT_ASSETS], s[TOTAL_ASSETS])
        + _differs(s[CURRENT_ASSETS] + s[FIXED_ASSETS], s[TOTAL_ASSETS])
        + _exceeds(liquid, s[CURRENT_ASSETS])
        + _exceeds(s[CURRENT_LIABILITIES], s[TOTAL_LIABILITIES])
        + _differs(s[CURRENT_LIABILITIES] + s[LONG_TERM_LIABILITIES], s[TOTAL_LIABILITIES])
        + _differs(s[REVENUE] - s[COST_OF_SALES], s[GROSS_PROFIT])
    )


cdef int count_statement_faults(const Books* books) noexcept nogil:
    """How many identities of both statements do not hold; -1 where none can be checked."""
    cdef int checked = 0
    cdef int faults = _faults_of(books.current, &checked) + _faults_of(books.prior, &checked)
    return faults if faults or checked else -1


def altman_z(double wc_ta, double re_ta, double ebit_ta, double mve_tl, double s_ta, double sales_coefficient=0.999):
    """Altman's Z of five ratios (1968). Some prints round the last coefficient to 1.0."""
    return _z(wc_ta, re_ta, ebit_ta, mve_tl, s_ta, sales_coefficient)


def springate(double wc_ta, double ebit_ta, double ebt_cl, double s_ta):
    """Springate's score of four ratios (1978); below 0.862 fails."""
    return _springate(wc_ta, ebit_ta, ebt_cl, s_ta)


def beneish_m(
    *, double dsri, double gmi, double aqi, double sgi, double depi, double sgai, double tata, double lvgi
):
    """Beneish's M of eight indices (1999); above -1.78 flags."""
    return _beneish(dsri, gmi, aqi, sgi, depi, sgai, tata, lvgi)


cdef void _fill(double* s, dict values, str prefix):
    for place, name in enumerate(STATEMENT_FIELDS):
        value = values.get(prefix + name)
        s[place] = NAN if value is None else amount(value)


def distress(dict values not None, *, listed=None, manufacturer=None, gnp_index=None, dollars=None):
    """All eight models of a statement, {model: (value or None, zone or None, names lacking)}, and which one applies.

    values: STATEMENT_FIELDS by name, those of the year before with `prior.` in front; flows over twelve months.
    """
    cdef Books books
    cdef Distress out
    _fill(books.current, values, "")
    _fill(books.prior, values, "prior.")
    books.gnp_index = NAN if gnp_index is None else gnp_index
    books.dollars = NAN if dollars is None else dollars
    books.listed = -1 if listed is None else listed
    books.manufacturer = -1 if manufacturer is None else manufacturer
    compute_distress(&books, &out)
    result = {}
    for place, model in enumerate(MODELS):
        value = out.value[place]
        zone = zone_of(place, value)
        lacking = [name for bit, name in enumerate(INPUTS[model]) if out.lacking[place] >> bit & 1]
        result[model] = (None if isnan(value) else value, None if zone < 0 else ZONES[model][zone], lacking)
    return result, None if out.chosen < 0 else MODELS[out.chosen]
