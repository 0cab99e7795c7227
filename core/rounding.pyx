# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Nine significant digits: the one precision in which observed values are compared, recorded and shown.

# Design: a value is scaled to an integer of nine digits, exact below 2**53, and divided back by an exact power of ten,
so the result is the double nearest to the decimal. Where the scaled value lies too near a tie to be sure, the exact
conversion of Python decides.
"""

from libc.math cimport NAN, copysign, fabs, floor, isfinite
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy

__all__ = ["hundredths_text", "number_text", "rounded"]

cdef extern from "Python.h":
    char* PyOS_double_to_string(double, char, int, int, int*)
    double PyOS_string_to_double(const char*, char**, object) except? -1.0
    void PyMem_Free(void*)

cdef double[23] POWERS
cdef int _power
for _power in range(23):
    POWERS[_power] = float(f"1e{_power}")

cdef double TIE_MARGIN = 1e-5


cdef double _round_exactly(double x) noexcept:
    cdef char* text = PyOS_double_to_string(x, b"e", 8, 0, NULL)
    cdef double result = PyOS_string_to_double(text, NULL, None)
    PyMem_Free(text)
    return result


cdef inline double _scaled(double a, int power) noexcept:
    return a * POWERS[power] if power >= 0 else a / POWERS[-power]


cdef inline int _power_of(double a) noexcept:
    """The power of ten that brings `a` to nine digits before the point; 99 where none is exact."""
    cdef uint64_t bits
    cdef int power
    memcpy(&bits, &a, 8)
    # the binary exponent times log10(2): the decimal exponent or one beside it, which the scaled value then shows
    power = 8 - (((<int>(bits >> 52) - 1023) * 315653) >> 20)
    if power > 21 or power < -21:
        return 99
    if _scaled(a, power) >= 1e9:
        return power - 1
    if _scaled(a, power) < 1e8:
        return power + 1
    return power


cdef double round9(double x) noexcept:
    """x to nine significant digits, as float(format(x, ".9g")); NaN for anything not finite."""
    cdef double a = fabs(x), scaled, whole
    cdef int power
    if not isfinite(x):
        return NAN
    if a < 1e9 and a == floor(a):
        return x + 0.0
    power = _power_of(a)
    if power == 99:
        return _round_exactly(x)
    scaled = _scaled(a, power)
    whole = floor(scaled)
    if fabs(scaled - whole - 0.5) < TIE_MARGIN:
        return _round_exactly(x)
    whole += scaled - whole > 0.5
    return copysign(whole / POWERS[power] if power >= 0 else whole * POWERS[-power], x)


cdef int _write_digits(char* out, int64_t value) noexcept:
    cdef char[20] reverse
    cdef int n = 0, i
    while True:
        reverse[n] = <char>(48 + value % 10)
        n += 1
        value //= 10
        if value == 0:
            break
    for i in range(n):
        out[i] = reverse[n - 1 - i]
    return n


cdef int write_number(char* out, double x) noexcept:
    """Write a value that round9 returned as JSON; the length. out: at least 40 bytes."""
    cdef char[20] digits
    cdef int n, i, place = 0, power, point
    cdef double a = fabs(x)
    cdef char* text
    if x < 0:
        out[0] = 45
        place = 1
    if a < 1e9 and a == floor(a):
        return place + _write_digits(out + place, <int64_t>a)
    power = _power_of(a)
    if power == 99 or power > 12 or power < -6:
        text = PyOS_double_to_string(x, b"r", 0, 0, NULL)
        n = 0
        while text[n]:
            out[n] = text[n]
            n += 1
        PyMem_Free(text)
        return n
    n = _write_digits(digits, <int64_t>floor(_scaled(a, power) + 0.5))
    point = n - power                      # digits before the decimal point, zero or less for 0.0…
    while n > 1 and n > point and digits[n - 1] == 48:
        n -= 1
    if point <= 0:
        out[place], out[place + 1] = 48, 46
        place += 2
        while point < 0:
            out[place] = 48
            place += 1
            point += 1
        memcpy(out + place, digits, n)
        return place + n
    for i in range(point):
        out[place] = digits[i] if i < n else 48
        place += 1
    if n > point:
        out[place] = 46
        memcpy(out + place + 1, digits + point, n - point)
        place += 1 + n - point
    return place


cdef int write_hundredths(char* out, int32_t hundredths) noexcept:
    """Write points as JSON with at most two decimals and no trailing zero; the length. out: at least 16 bytes."""
    cdef int place = 0, rest
    cdef int64_t value = hundredths
    if value < 0:
        out[0] = 45
        place, value = 1, -value
    place += _write_digits(out + place, value // 100)
    rest = <int>(value % 100)
    if rest:
        out[place] = 46
        out[place + 1] = <char>(48 + rest // 10)
        place += 2
        if rest % 10:
            out[place] = <char>(48 + rest % 10)
            place += 1
    return place


def rounded(double x):
    """x to nine significant digits; NaN for anything not finite."""
    return round9(x)


def number_text(double x):
    """The JSON text of a finite value, rounded to nine significant digits."""
    cdef char[48] out
    cdef int n = write_number(out, round9(x))
    return out[:n].decode("ascii")


def hundredths_text(int32_t hundredths):
    """The JSON text of points given in hundredths."""
    cdef char[24] out
    cdef int n = write_hundredths(out, hundredths)
    return out[:n].decode("ascii")
