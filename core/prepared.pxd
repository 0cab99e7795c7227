cimport cython
from libc.stdint cimport int32_t, uint32_t

from core.ratios cimport N_DISTRESS
from core.writing cimport Text


@cython.final
cdef class PreparedTexts:
    cdef list _kept
    cdef Text* reason_heads              # per attribute, all characteristics end to end
    cdef Text* reason_tails
    cdef int32_t n_attributes            # of all characteristics
    cdef Text* codes                     # observed value of a category, per characteristic and code
    cdef int32_t* first_code
    cdef int32_t* n_codes
    cdef Text* category_heads
    cdef Text* category_tails
    cdef int32_t* category_order
    cdef Text* overrides
    cdef Text* floors
    cdef int32_t* floor_above            # the next higher floor of the same category, -1 = none
    cdef Text* distress_heads
    cdef Text* zones                     # three per distress model
    cdef Text* inputs                    # names of a distress model's inputs
    cdef int32_t* first_input
    cdef uint32_t input_masks[N_DISTRESS]
    cdef Text level_texts[4]
    cdef Text decision_texts[3]
    cdef Text base_text, tail
    cdef Py_ssize_t full_bytes           # upper bound of the prepared part of an answer

    cdef Text _text(self, bytes value)
    cdef Text* _texts(self, values) except NULL
    cdef int32_t* _integers(self, values) except NULL
