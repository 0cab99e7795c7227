"""The bytes of which answers are assembled, prepared per characteristic and attribute when a model is loaded."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t
from libc.stdlib cimport free

from core.memory cimport new_array
from core.writing cimport Text

from core.fragments import Fragments
from core.ratios import INPUTS, MODELS

__all__ = ["PreparedTexts"]


cdef class PreparedTexts:
    """core.fragments of a model, laid out for the scorer. model: core.model.Model, sound."""

    def __cinit__(self, model):
        cdef int i
        fragments = Fragments(model)
        self._kept = []
        self.n_attributes = len(fragments.reason_heads)
        self.reason_heads = self._texts(fragments.reason_heads)
        self.reason_tails = self._texts(fragments.reason_tails)
        self.codes = self._texts(fragments.codes)
        self.first_code = self._integers(fragments.first_code)
        self.n_codes = self._integers(fragments.n_codes)
        self.category_heads = self._texts(fragments.category_heads)
        self.category_tails = self._texts(fragments.category_tails)
        self.category_order = self._integers(fragments.category_order)
        self.overrides = self._texts(fragments.overrides)
        self.floors = self._texts(fragments.floors)
        self.floor_above = self._integers(fragments.floor_above)
        self.distress_heads = self._texts(fragments.distress_heads)
        self.zones = self._texts(fragments.zones)
        self.inputs = self._texts(fragments.inputs)
        self.first_input = self._integers(fragments.first_input)
        for i, name in enumerate(MODELS):
            self.input_masks[i] = (1 << len(INPUTS[name])) - 1
        for i in range(4):
            self.level_texts[i] = self._text(fragments.levels[i])
        for i in range(3):
            self.decision_texts[i] = self._text(fragments.decisions[i])
        self.base_text, self.tail = self._text(fragments.base), self._text(fragments.tail)
        self.full_bytes = fragments.size

    def __dealloc__(self):
        free(self.reason_heads)
        free(self.reason_tails)
        free(self.codes)
        free(self.first_code)
        free(self.n_codes)
        free(self.category_heads)
        free(self.category_tails)
        free(self.category_order)
        free(self.overrides)
        free(self.floors)
        free(self.floor_above)
        free(self.distress_heads)
        free(self.zones)
        free(self.inputs)
        free(self.first_input)

    cdef Text _text(self, bytes value):
        self._kept.append(value)
        return Text(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))

    cdef Text* _texts(self, values) except NULL:
        cdef int i
        cdef Text* texts = <Text*>new_array(len(values), sizeof(Text))
        for i, value in enumerate(values):
            texts[i] = self._text(value)
        return texts

    cdef int32_t* _integers(self, values) except NULL:
        cdef int i
        cdef int32_t* integers = <int32_t*>new_array(len(values), sizeof(int32_t))
        for i, value in enumerate(values):
            integers[i] = value
        return integers
