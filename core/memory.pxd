# Arrays that a compiled class owns and frees in __dealloc__.

from libc.stdlib cimport calloc


cdef inline void* new_array(Py_ssize_t count, size_t size) except NULL:
    """Zeroed room for `count` items, never NULL; raises MemoryError."""
    cdef void* memory = calloc(count if count > 0 else 1, size)
    if memory == NULL:
        raise MemoryError
    return memory
