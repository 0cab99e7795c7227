# The fields of msgspec structs, read at their slots' offsets. Values are borrowed from the struct; None is NULL.
# Whoever reads dates calls import_datetime() first.

from cpython.datetime cimport PyDateTime_GET_DAY, PyDateTime_GET_MONTH, PyDateTime_GET_YEAR
from cpython.dict cimport PyDict_GetItemWithError
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.list cimport PyList_CheckExact
from cpython.long cimport PyLong_AsDouble, PyLong_AsLong, PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_CheckExact
from libc.math cimport NAN
from libc.stdint cimport uint8_t
from libc.string cimport strlen

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(object text) noexcept
    void* PyUnicode_DATA(object text) noexcept

cdef extern from *:
    """
    #include <structmember.h>
    static inline Py_ssize_t member_offset(PyObject* descriptor) {
        if (!Py_IS_TYPE(descriptor, &PyMemberDescr_Type)) return -1;
        return ((PyMemberDescrObject*)descriptor)->d_member->offset;
    }
    static inline PyObject* slot_value(PyObject* object, Py_ssize_t offset) {
        PyObject* value = *(PyObject**)((char*)object + offset);
        return value == Py_None ? NULL : value;
    }
    static inline int is_exactly(PyObject* object, PyObject* type) { return (PyObject*)Py_TYPE(object) == type; }
    static inline int is_true(PyObject* object) { return object == Py_True; }
    static inline int is_bool(PyObject* object) { return PyBool_Check(object); }
    static const int DAYS_BEFORE[13] = {0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    """
    Py_ssize_t member_offset(object descriptor)
    PyObject* slot_value(PyObject* object, Py_ssize_t offset) noexcept
    bint is_exactly(PyObject* object, PyObject* type) noexcept
    bint is_true(PyObject* object) noexcept
    bint is_bool(PyObject* object) noexcept
    const int[13] DAYS_BEFORE            # of a month's first, in a year without a leap day


cdef struct Slot:                    # a field of a struct type
    PyObject* owner                  # the struct's type, checked before the offset is used
    Py_ssize_t offset


cdef inline Slot slot_of(object owner, str name) except *:
    """The slot of a struct's field. Raises TypeError for a type whose fields are not plain slots."""
    for base in owner.__mro__:
        descriptor = base.__dict__.get(name)
        if descriptor is not None:
            offset = member_offset(descriptor)
            if offset > 0:
                return Slot(<PyObject*>owner, offset)
    raise TypeError(f"{owner.__name__}.{name} is not a slot of a struct")


cdef inline int ordinal(object date) noexcept:
    """Proleptic Gregorian ordinal, as date.toordinal()."""
    cdef int year = PyDateTime_GET_YEAR(date), month = PyDateTime_GET_MONTH(date), before = year - 1
    cdef bint leap = (year % 4 == 0) and (year % 100 != 0 or year % 400 == 0)
    cdef int day = DAYS_BEFORE[month] + (leap and month > 2) + PyDateTime_GET_DAY(date)
    return before * 365 + before // 4 - before // 100 + before // 400 + day


cdef inline int mismatch(PyObject* value, str wanted) except -1:
    raise TypeError(f"a {wanted} was expected, not {type(<object>value).__name__}")


cdef inline PyObject* read_field(PyObject* struct, const Slot* slot) except? NULL:
    """A field's value, borrowed; NULL where it is None."""
    if not is_exactly(struct, slot.owner):
        raise TypeError(f"{(<object>slot.owner).__name__} was expected, not {type(<object>struct).__name__}")
    return slot_value(struct, slot.offset)


cdef inline bint has_shape(PyObject* text, const char* shape) noexcept:
    """Whether a text is made as catalogue.Field.shape says."""
    cdef const uint8_t* p
    cdef Py_ssize_t i, n = strlen(shape)
    if not PyUnicode_IS_ASCII(<object>text) or PyUnicode_GET_LENGTH(<object>text) != n:
        return False
    p = <const uint8_t*>PyUnicode_DATA(<object>text)
    for i in range(n):
        if not ((65 <= p[i] <= 90 and shape[i] != 57) or (48 <= p[i] <= 57 and shape[i] != 65)):
            return False
    return True


cdef inline double as_number(PyObject* value) except? -7.0:
    if value == NULL:
        return NAN
    if PyFloat_CheckExact(<object>value):
        return PyFloat_AS_DOUBLE(<object>value)
    if not PyLong_CheckExact(<object>value):
        mismatch(value, "number")
    return PyLong_AsDouble(<object>value)


cdef inline double as_flag(PyObject* value) except? -7.0:
    if value == NULL:
        return NAN
    if not is_bool(value):
        mismatch(value, "flag")
    return is_true(value)


cdef inline PyObject* as_list(PyObject* value) except? NULL:
    if value != NULL and not PyList_CheckExact(<object>value):
        mismatch(value, "list")
    return value


cdef inline PyObject* as_text(PyObject* value) except? NULL:
    if value != NULL and not PyUnicode_CheckExact(<object>value):
        mismatch(value, "text")
    return value


cdef inline double as_code(PyObject* value, PyObject* codes) except? -7.0:
    cdef PyObject* code
    if value == NULL:
        return NAN
    code = PyDict_GetItemWithError(<object>codes, <object>as_text(value))
    if code == NULL:
        raise ValueError(f'"{<object>value}" is not one of {", ".join(<object>codes)}')
    return PyLong_AsLong(<object>code)
