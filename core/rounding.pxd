from libc.stdint cimport int32_t

cdef double round9(double x) noexcept
cdef int write_number(char* out, double x) noexcept
cdef int write_hundredths(char* out, int32_t hundredths) noexcept
