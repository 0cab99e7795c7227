# The small writers of which answers are assembled: each copies something to `at` and returns the place after it.
# The caller has made the room.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy, strlen


cdef struct Text:                        # bytes that something else keeps alive
    const char* start
    Py_ssize_t length


cdef inline char* put(char* at, const char* text) noexcept:
    """Copy a literal; the compiler knows its length."""
    cdef size_t length = strlen(text)
    memcpy(at, text, length)
    return at + length


cdef inline char* put_text(char* at, const Text* text) noexcept:
    memcpy(at, text.start, text.length)
    return at + text.length


cdef inline char* put_bytes(char* at, bytes text) noexcept:
    memcpy(at, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    return at + PyBytes_GET_SIZE(text)


cdef inline char* put_padded(char* at, int value, int digits) noexcept:
    cdef int i
    for i in range(digits - 1, -1, -1):
        at[i] = <char>(48 + value % 10)
        value //= 10
    return at + digits


cdef inline char* put_date(char* at, int64_t days) noexcept:
    """A date given in days since 1970 (the civil-from-days algorithm of Howard Hinnant)."""
    cdef int64_t z = days + 719468, era, doe, yoe, doy, mp, year
    cdef int month
    era = z // 146097
    doe = z - era * 146097
    yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    mp = (5 * doy + 2) // 153
    month = <int>(mp + 3 if mp < 10 else mp - 9)
    year = yoe + era * 400 + (month <= 2)
    at = put_padded(at, <int>year, 4)
    at[0] = 45
    at = put_padded(at + 1, month, 2)
    at[0] = 45
    return put_padded(at + 1, <int>(doy - (153 * mp + 2) // 5 + 1), 2)


cdef inline char* put_identity(char* at, bytes id) except NULL:
    """The id and, from its first six bytes, the time of creation; null and null where there is no id."""
    cdef const uint8_t* raw
    cdef const char* digits = b"0123456789abcdef"
    cdef int64_t ms = 0, of_day
    cdef int i
    if id is None:
        return put(at, b'null,"created_at":null')
    if PyBytes_GET_SIZE(id) != 16:
        raise ValueError("an id has 16 bytes")
    raw = <const uint8_t*>PyBytes_AS_STRING(id)
    at[0] = 34
    at += 1
    for i in range(16):
        if i == 4 or i == 6 or i == 8 or i == 10:
            at[0] = 45
            at += 1
        at[0], at[1] = digits[raw[i] >> 4], digits[raw[i] & 15]
        at += 2
        if i < 6:
            ms = ms << 8 | raw[i]
    at = put(at, b'","created_at":"')
    at = put_date(at, ms // 86_400_000)
    of_day = ms % 86_400_000
    at[0] = 84
    at = put_padded(at + 1, <int>(of_day // 3_600_000), 2)
    at[0] = 58
    at = put_padded(at + 1, <int>(of_day // 60_000 % 60), 2)
    at[0] = 58
    at = put_padded(at + 1, <int>(of_day // 1000 % 60), 2)
    at[0] = 46
    at = put_padded(at + 1, <int>(of_day % 1000), 3)
    return put(at, b'Z"')
