# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""From a decoded profile and its evidence to a row of features, by a plan prepared when the model is loaded.

# Design: profile and evidence are msgspec structs. A field is read at its slot's offset, taken from the type's own
member descriptor, after checking that the object is of exactly that type: a pointer load instead of an attribute
look-up (core.fields; PERF: benchmarks/test_core.py::test_features). Objects stay borrowed: the profile holds them for
the length of the call. Lists of countries become lists of numbers once, however many features ask for them. An
extractor holds no state of a profile, so threads may share one.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.datetime cimport PyDate_Check, PyDateTime_GET_YEAR, import_datetime
from cpython.dict cimport PyDict_GetItemWithError
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_AsLong
from cpython.object cimport PyObject
from libc.math cimport NAN, isnan
from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from core.fields cimport (
    Slot, as_code, as_flag, as_list, as_number, as_text, has_shape, is_exactly, mismatch, ordinal, read_field, slot_of,
)
from core.memory cimport new_array
from core.ratios cimport N_DISTRESS, N_STATEMENT, Books, Distress, amount, compute_distress, count_statement_faults
from core.rounding cimport round9

from core.extraction import extraction_plan
from core.ratios import FLOW_FIELDS, STATEMENT_FIELDS
from core.validity import DAYS_AHEAD, MAX_SHARES_PCT, ProfileInvalid, profile_faults

__all__ = ["Extractor", "feature_row"]

import_datetime()

cdef enum:
    NUMBER, FLAG, CATEGORY, AGE, FIRST, HIGHEST, LOWEST, COUNT, SUM, MAX, ANY, GIVEN, CLASS, MEMBER
    INDUSTRY_CLASS, INDUSTRY_MEMBER, RATIO, DISTRESS, DISTRESS_CHOICE, STATEMENT_FAULTS

KINDS = {
    "number": NUMBER, "flag": FLAG, "category": CATEGORY, "age": AGE,
    "first": FIRST, "highest": HIGHEST, "lowest": LOWEST,
    "count": COUNT, "sum": SUM, "max": MAX, "any": ANY, "given": GIVEN,
    "class": CLASS, "member": MEMBER, "industry_class": INDUSTRY_CLASS, "industry_member": INDUSTRY_MEMBER,
    "ratio": RATIO, "distress": DISTRESS, "distress_choice": DISTRESS_CHOICE, "statement_faults": STATEMENT_FAULTS,
}
NO_CHOICE = 4
cdef double DAYS_A_YEAR = 365.25
cdef double SHARES_LIMIT = MAX_SHARES_PCT
cdef int AHEAD = DAYS_AHEAD


cdef inline bint _can_be(PyObject* value, const Source* source, int last) except -1:
    """Whether a date is not after the last one accepted, or a code has its shape; a missing one can be."""
    if value == NULL:
        return True
    if source.shape != NULL:
        return has_shape(as_text(value), source.shape)
    if not PyDate_Check(<object>value):
        mismatch(value, "date")
    return ordinal(<object>value) <= last


cdef class Extractor:
    """Fills rows of features for one model.

    model: core.model.Model, sound.  catalogue: core.catalogue.Catalogue of the structs that will be read.
    """

    def __cinit__(self, model, catalogue):
        cdef int i
        plan = self.plan = extraction_plan(model, catalogue)
        self.catalogue = catalogue
        self._kept = [catalogue.profile, catalogue.evidence]
        self._country_index = plan.countries.index
        self._industry_cache = plan.industries.cache
        self._gnp_index, self._fx = plan.gnp_index, plan.fx
        self.roots[0], self.roots[1] = <PyObject*>catalogue.profile, <PyObject*>catalogue.evidence
        self.n_nodes = len(plan.nodes) + 2
        if self.n_nodes > MAX_NODES:
            raise ValueError(f"the profile has more than {MAX_NODES} structs")
        self.nodes = <Node*>new_array(self.n_nodes, sizeof(Node))
        for i, node in enumerate(plan.nodes, 2):
            self.nodes[i] = Node(node.parent, slot_of(node.owner, node.name), <PyObject*>node.type)
            self._kept.append(node.type)
        self.n_countries, self.n_checked = len(plan.country_sources), len(plan.checked_sources)
        if self.n_countries > MAX_COUNTRY_FIELDS:
            raise ValueError(f"the profile has more than {MAX_COUNTRY_FIELDS} country fields")
        self.countries = <Source*>new_array(self.n_countries, sizeof(Source))
        self.checked = <Source*>new_array(self.n_checked, sizeof(Source))
        for i, source in enumerate(plan.country_sources):
            self._plan_source(&self.countries[i], source)
        for i, source in enumerate(plan.checked_sources):
            self._plan_source(&self.checked[i], source)
        self.intervals = <double*>new_array(2 * len(plan.intervals), sizeof(double))
        for i, (low, high) in enumerate(plan.intervals):
            self.intervals[2 * i], self.intervals[2 * i + 1] = low, high
        self._plan_ops(plan.ops)
        self.statement_slots = <Slot*>new_array(N_STATEMENT + 1, sizeof(Slot))
        for i, name in enumerate(STATEMENT_FIELDS):
            self.statement_slots[i] = slot_of(plan.statement_type, name)
            self.is_flow[i] = name in FLOW_FIELDS
        self.statement_slots[N_STATEMENT] = slot_of(plan.statement_type, "period_months")
        self.period_end = slot_of(plan.statement_type, "period_end")
        self.current_node, self.prior_node = plan.statements
        self.financials_node, financials = plan.financials
        self.listed, self.manufacturer = slot_of(financials, "listed"), slot_of(financials, "manufacturer")
        self.currency = slot_of(financials, "currency")
        self.industry_node, owner, name, industry = plan.industry
        self.industry = slot_of(owner, name)
        self.industry_scheme, self.industry_code = slot_of(industry, "scheme"), slot_of(industry, "code")
        self.shares_node, owner, name, member, member_name = plan.shares
        self.owners, self.share_pct = slot_of(owner, name), slot_of(member, member_name)

    cdef int _plan_source(self, Source* out, source) except -1:
        out.node = source.node
        shape = source.shape.encode()
        self._kept.append(shape)
        out.shape = PyBytes_AS_STRING(shape) if shape else NULL
        out.slot = slot_of(source.owner, source.name)
        out.is_list = "[]" in source.path
        out.in_member = source.member is not None
        if out.in_member:
            out.member = slot_of(source.member, source.member_name)
        return 0

    cdef int _plan_ops(self, ops) except -1:
        cdef int i, n_where = 0, n_sources = 0, n_given = 0, n_linear = 0, n_members = 0
        cdef Op* out
        self.n_features = len(ops)
        self.ops = <Op*>new_array(len(ops), sizeof(Op))
        self.wheres = <Where*>new_array(sum(len(op.where) for op in ops), sizeof(Where))
        self.op_sources = <int32_t*>new_array(sum(len(op.sources) for op in ops), sizeof(int32_t))
        self.given = <Node*>new_array(sum(len(op.given) for op in ops), sizeof(Node))
        self.members = <Op*>new_array(sum(len(op.of) for op in ops), sizeof(Op))
        self.linears = <Linear*>new_array(sum(len(op.numerator) + len(op.denominator) for op in ops), sizeof(Linear))
        for i, op in enumerate(ops):
            out = &self.ops[i]
            self._plan_value(out, op)
            out.distress = op.distress
            if op.member is not None:
                out.has_member = True
                out.member = slot_of(op.member, op.member_name) if op.member_name else Slot(<PyObject*>op.member, 0)
            self._kept.append(op.ranks)
            out.ranks, out.unknown_below = <const uint8_t*><const char*>op.ranks, op.unknown_below
            out.first_where, out.n_where = n_where, len(op.where)
            for where in op.where:
                self._kept.append(where.values)
                self.wheres[n_where] = Where(
                    slot_of(where.owner, where.name), KINDS[where.kind], where.missing, where.first_interval,
                    where.n_intervals, where.codes, <PyObject*>where.values,
                )
                n_where += 1
            if op.of:
                out.first, out.count = n_members, len(op.of)
                for member in op.of:
                    self._plan_value(&self.members[n_members], member)
                    n_members += 1
            elif op.sources:
                out.first, out.count = n_sources, len(op.sources)
                for source in op.sources:
                    self.op_sources[n_sources] = source
                    n_sources += 1
            elif op.given:
                out.first, out.count = n_given, len(op.given)
                for node, owner, name in op.given:
                    self.given[n_given] = Node(node, slot_of(owner, name), NULL)
                    n_given += 1
            elif op.numerator:
                out.first, out.count, out.n_denominator = n_linear, len(op.numerator), len(op.denominator)
                for factor, place in (*op.numerator, *op.denominator):
                    self.linears[n_linear] = Linear(factor, place)
                    n_linear += 1
        return 0

    cdef int _plan_value(self, Op* out, op) except -1:
        """The part of an op that reads one field."""
        out.kind, out.node = KINDS[op.kind], op.node
        if op.owner is not None:
            out.slot = slot_of(op.owner, op.name)
        if op.codes is not None:
            self._kept.append(op.codes)
            out.values = <PyObject*>op.codes
        return 0

    def __dealloc__(self):
        free(self.nodes)
        free(self.countries)
        free(self.checked)
        free(self.wheres)
        free(self.intervals)
        free(self.op_sources)
        free(self.given)
        free(self.linears)
        free(self.members)
        free(self.ops)
        free(self.statement_slots)

    cdef int fill(
        self, object profile, object findings, int as_of, double* row, Books* books, Distress* distress
    ) except -1:
        """Fill a row of n_features, the two statements and the distress models.

        as_of: proleptic ordinal of the day that ages are counted to. Raises ProfileInvalid with every fault, TypeError
        for anything but the structs of the catalogue.
        """
        cdef Countries countries
        countries.numbers, countries.count, countries.capacity = countries.few, 0, FEW_COUNTRIES
        try:
            self._fill(profile, findings, as_of, row, books, distress, &countries)
        finally:
            if countries.numbers != countries.few:
                free(countries.numbers)
        return 0

    cdef int _fill(
        self, object profile, object findings, int as_of, double* row, Books* books, Distress* distress,
        Countries* countries
    ) except -1:
        cdef PyObject* at[MAX_NODES]
        cdef PyObject* value
        cdef int i, j, industry
        cdef bint valid
        cdef const Op* op
        cdef double x
        self._locate(profile, findings, at)
        industry = self._industry_number(at)
        valid = industry > -2 and self._read_countries(at, countries)
        valid = valid and self._values_can_be(at, as_of + AHEAD) and self._shares_add_up(at)
        if not valid:
            raise ProfileInvalid(profile_faults(profile, self.catalogue, self.plan, as_of))
        self._read_books(at, books)
        compute_distress(books, distress)
        for i in range(N_DISTRESS):
            distress.value[i] = round9(distress.value[i])
        for i in range(self.n_features):
            op = &self.ops[i]
            if op.kind <= AGE:
                x = self._field(op, at, as_of)
            elif op.kind <= LOWEST:
                x = self._of_several(op, at, as_of)
            elif op.kind <= ANY:
                x = round9(self._over_list(op, at))
            elif op.kind == GIVEN:
                x = 0
                for j in range(op.first, op.first + op.count):
                    value = at[self.given[j].parent]
                    x += value != NULL and read_field(value, &self.given[j].slot) != NULL
            elif op.kind <= MEMBER:
                x = self._worst(op, countries)
            elif op.kind <= INDUSTRY_MEMBER:
                x = NAN if industry < 0 else op.ranks[industry]
            elif op.kind == RATIO:
                x = round9(self._ratio(op, books))
            elif op.kind == DISTRESS:
                x = distress.value[op.distress] if distress.chosen == op.distress else NAN
            elif op.kind == DISTRESS_CHOICE:
                x = distress.chosen if distress.chosen >= 0 else NO_CHOICE
            else:
                j = count_statement_faults(books)
                x = NAN if j < 0 else j
            row[i] = x
        return 0

    cdef int _locate(self, object profile, object findings, PyObject** at) except -1:
        """Find every struct inside profile and evidence; NULL where it, or one that holds it, is missing."""
        cdef PyObject* value
        cdef int i
        at[0], at[1] = <PyObject*>profile, <PyObject*>findings
        for i in range(2):
            if not is_exactly(at[i], self.roots[i]):
                mismatch(at[i], (<object>self.roots[i]).__name__)
        for i in range(2, self.n_nodes):
            value = at[self.nodes[i].parent]
            if value != NULL:
                value = read_field(value, &self.nodes[i].slot)
                if value != NULL and not is_exactly(value, self.nodes[i].type):
                    mismatch(value, (<object>self.nodes[i].type).__name__)
            at[i] = value
        return 0

    cdef double _field(self, const Op* op, PyObject** at, int as_of) except? -7.0:
        """One field: a number, a flag, a category's code, or the age of a date."""
        cdef PyObject* value = at[op.node]
        if value != NULL:
            value = read_field(value, &op.slot)
        if op.kind == NUMBER:
            return round9(as_number(value))
        if op.kind == FLAG:
            return as_flag(value)
        if op.kind == CATEGORY:
            return as_code(value, op.values)
        if value == NULL:
            return NAN
        # _values_can_be has seen that the profile's are dates, but looks at no evidence.
        if not PyDate_Check(<object>value):
            mismatch(value, "date")
        return round9((as_of - ordinal(<object>value)) / DAYS_A_YEAR)

    cdef double _of_several(self, const Op* op, PyObject** at, int as_of) except? -7.0:
        """The first, highest or lowest of the fields that are known; missing where none is."""
        cdef double x, result = NAN
        cdef int32_t i
        for i in range(op.first, op.first + op.count):
            x = self._field(&self.members[i], at, as_of)
            if isnan(x):
                continue
            if op.kind == FIRST:
                return x
            if isnan(result) or (x > result if op.kind == HIGHEST else x < result):
                result = x
        return result

    cdef double _ratio(self, const Op* op, const Books* books) noexcept:
        cdef double divisor, x = self._linear(op.first, op.count, books)
        if op.n_denominator:
            divisor = self._linear(op.first + op.count, op.n_denominator, books)
            x = x / divisor if divisor > 0 else NAN
        return x

    cdef double _linear(self, int32_t first, int32_t count, const Books* books) noexcept:
        cdef double total = 0, x
        cdef int32_t i, place
        for i in range(first, first + count):
            place = self.linears[i].place
            x = books.current[place] if place < N_STATEMENT else books.prior[place - N_STATEMENT]
            total += self.linears[i].factor * x
        return total

    cdef bint _read_countries(self, PyObject** at, Countries* out) except -1:
        """Every country of the profile as a number; False where one is not known."""
        cdef int32_t i
        cdef Py_ssize_t k
        cdef int number
        cdef const Source* source
        cdef Found* found
        cdef PyObject* value
        cdef PyObject* member
        for i in range(self.n_countries):
            source, found = &self.countries[i], &out.found[i]
            found.first, found.count = out.count, 0
            value = at[source.node]
            if value != NULL:
                value = read_field(value, &source.slot)
            found.unknown = value == NULL
            k = 0
            while value != NULL:
                member = value
                if source.is_list:
                    if k >= PyList_GET_SIZE(<object>as_list(value)):
                        break
                    member = <PyObject*>PyList_GET_ITEM(<object>value, k)
                    if source.in_member:
                        member = read_field(member, &source.member)
                if member == NULL:
                    found.unknown = True
                else:
                    number = self._country_number(member)
                    if number < 0:
                        return False
                    if out.count == out.capacity:
                        _grow(out)
                    out.numbers[out.count] = number
                    out.count += 1
                    found.count += 1
                k += 1
                if not source.is_list:
                    break
        return True

    cdef int _country_number(self, PyObject* text) except -2:
        cdef PyObject* number = PyDict_GetItemWithError(self._country_index, <object>as_text(text))
        return PyLong_AsLong(<object>number) if number != NULL else self.plan.countries.find(<object>text)

    cdef bint _values_can_be(self, PyObject** at, int last) except -1:
        """Whether every date and code of the profile can be. last: ordinal of the last date accepted."""
        cdef int32_t i
        cdef Py_ssize_t k
        cdef const Source* source
        cdef PyObject* value
        cdef PyObject* member
        for i in range(self.n_checked):
            source = &self.checked[i]
            value = at[source.node]
            if value != NULL:
                value = read_field(value, &source.slot)
            if value == NULL:
                continue
            if not source.is_list:
                if not _can_be(value, source, last):
                    return False
                continue
            for k in range(PyList_GET_SIZE(<object>as_list(value))):
                member = <PyObject*>PyList_GET_ITEM(<object>value, k)
                if source.in_member:
                    member = read_field(member, &source.member)
                if not _can_be(member, source, last):
                    return False
        return True

    cdef bint _shares_add_up(self, PyObject** at) except -1:
        cdef PyObject* owners = at[self.shares_node]
        cdef double total = 0, share
        cdef Py_ssize_t k
        if owners != NULL:
            owners = as_list(read_field(owners, &self.owners))
        if owners == NULL:
            return True
        for k in range(PyList_GET_SIZE(<object>owners)):
            share = as_number(read_field(<PyObject*>PyList_GET_ITEM(<object>owners, k), &self.share_pct))
            if not isnan(share):
                total += share
        return round9(total) <= SHARES_LIMIT

    cdef int _industry_number(self, PyObject** at) except -3:
        """The industry group's number; -1 where none is given, -2 where the code is not known."""
        cdef PyObject* value = at[self.industry_node]
        cdef PyObject* scheme
        cdef PyObject* code
        cdef PyObject* found
        if value != NULL:
            value = read_field(value, &self.industry)
        if value == NULL:
            return -1
        scheme = as_text(read_field(value, &self.industry_scheme))
        code = as_text(read_field(value, &self.industry_code))
        if scheme == NULL or code == NULL:
            raise TypeError("an industry has a scheme and a code")
        key = (<object>scheme, <object>code)
        found = PyDict_GetItemWithError(self._industry_cache, key)
        number = PyLong_AsLong(<object>found) if found != NULL else self.plan.industries.find(key[0], key[1])
        return -2 if number < 0 else number

    cdef int _read_books(self, PyObject** at, Books* books) except -1:
        cdef PyObject* financials = at[self.financials_node]
        cdef PyObject* value
        cdef double flag
        books.listed = books.manufacturer = -1
        books.dollars = books.gnp_index = NAN
        self._read_statement(at[self.current_node], books.current)
        self._read_statement(at[self.prior_node], books.prior)
        if financials == NULL:
            return 0
        flag = as_flag(read_field(financials, &self.listed))
        books.listed = -1 if isnan(flag) else <int>flag
        flag = as_flag(read_field(financials, &self.manufacturer))
        books.manufacturer = -1 if isnan(flag) else <int>flag
        value = as_text(read_field(financials, &self.currency))
        if value != NULL:
            value = PyDict_GetItemWithError(self._fx, <object>value)
            if value != NULL:
                books.dollars = PyFloat_AS_DOUBLE(<object>value)
        value = NULL if at[self.current_node] == NULL else read_field(at[self.current_node], &self.period_end)
        if value != NULL:
            value = PyDict_GetItemWithError(self._gnp_index, PyDateTime_GET_YEAR(<object>value) - 1)
            if value != NULL:
                books.gnp_index = PyFloat_AS_DOUBLE(<object>value)
        return 0

    cdef int _read_statement(self, PyObject* statement, double* out) except -1:
        cdef int i
        cdef double months, scale
        if statement == NULL:
            for i in range(N_STATEMENT):
                out[i] = NAN
            return 0
        months = as_number(read_field(statement, &self.statement_slots[N_STATEMENT]))
        scale = 1.0 if isnan(months) else 12.0 / months
        for i in range(N_STATEMENT):
            out[i] = amount(as_number(read_field(statement, &self.statement_slots[i])))
            if self.is_flow[i] and scale != 1.0:
                out[i] *= scale
        return 0

    cdef double _over_list(self, const Op* op, PyObject** at) except? -7.0:
        """Count, sum, max or any over the members that meet the conditions.

        Missing where the list is, or a member's value; but one flag that is true makes `any` true.
        """
        cdef PyObject* members = at[op.node]
        cdef PyObject* member
        cdef double result = 0, x
        cdef bint unknown = False
        cdef Py_ssize_t k
        if members != NULL:
            members = as_list(read_field(members, &op.slot))
        if members == NULL:
            return NAN
        for k in range(PyList_GET_SIZE(<object>members)):
            member = <PyObject*>PyList_GET_ITEM(<object>members, k)
            if op.n_where and not self._meets(op, member):
                continue
            if op.kind == COUNT:
                result += 1
                continue
            if op.has_member:
                member = read_field(member, &op.member)
            x = as_flag(member) if op.kind == ANY else as_number(member)
            if isnan(x):
                unknown = True
            elif op.kind == SUM:
                result += x
            elif x > result:
                result = x
        if unknown and not (op.kind == ANY and result):
            return NAN
        return result

    cdef bint _meets(self, const Op* op, PyObject* member) except -1:
        cdef int32_t w, i
        cdef const Where* where
        cdef PyObject* value
        cdef double x
        cdef bint met
        for w in range(op.first_where, op.first_where + op.n_where):
            where = &self.wheres[w]
            value = read_field(member, &where.slot)
            if value == NULL:
                met = where.missing
            elif where.kind == NUMBER:
                x, met = round9(as_number(value)), False
                for i in range(where.first_interval, where.first_interval + where.n_intervals):
                    met = met or self.intervals[2 * i] <= x < self.intervals[2 * i + 1]
            else:
                x = as_flag(value) if where.kind == FLAG else as_code(value, where.values)
                met = (where.codes >> <int32_t>x) & 1
            if not met:
                return False
        return True

    cdef double _worst(self, const Op* op, const Countries* countries) noexcept:
        """The highest rank of the countries named; missing where an unknown one, or none at all, could be worse."""
        cdef int32_t s, i, rank, worst = -1
        cdef const Found* found
        cdef bint unknown = False
        for s in range(op.first, op.first + op.count):
            found = &countries.found[self.op_sources[s]]
            unknown = unknown or found.unknown
            for i in range(found.first, found.first + found.count):
                rank = op.ranks[countries.numbers[i]]
                if rank > worst:
                    worst = rank
        if unknown and worst < op.unknown_below:
            return NAN
        return worst if worst > 0 else 0


cdef int _grow(Countries* countries) except -1:
    """Make room for twice as many countries."""
    cdef int32_t* grown = <int32_t*>malloc(2 * countries.capacity * sizeof(int32_t))
    if grown == NULL:
        raise MemoryError
    memcpy(grown, countries.numbers, countries.count * sizeof(int32_t))
    if countries.numbers != countries.few:
        free(countries.numbers)
    countries.numbers, countries.capacity = grown, 2 * countries.capacity
    return 0


def feature_row(Extractor extractor not None, profile, findings, int as_of):
    """The features of one profile in the model's order: numbers, NaN = missing, categories as their codes."""
    cdef Books books
    cdef Distress distress
    cdef double* row = <double*>new_array(extractor.n_features, sizeof(double))
    try:
        extractor.fill(profile, findings, as_of, row, &books, &distress)
        return [row[i] for i in range(extractor.n_features)]
    finally:
        free(row)
