# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernel: a row of features in, the attribute and points of every characteristic out, and what follows from them.

# Design: everything is an array prepared when the model is loaded; a row is scored without touching a Python object.
A number's bin is the count of bounds that are <= x (open and closed bounds were made alike by one ulp, see
conditions.Interval). Not applicable is decided by rules over the same row.
Source of the semantics: PMML 4.4 Scorecard, first matching attribute.
"""

from libc.math cimport isnan
from libc.stdint cimport int32_t, uint8_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from core.memory cimport new_array

__all__ = ["Card", "ShapeError", "conclude_row", "score_rows"]


class ShapeError(ValueError):
    """Arrays whose shapes do not fit the model; nothing was written."""


cdef class Card:
    """The characteristics, rules, floors and overrides of one model, ready to score.

    plan: core.plan.CardPlan.
    """

    def __cinit__(self, plan):
        cdef int i
        self.n_features = plan.n_features
        self.n_lines = self.n_characteristics = len(plan.lines)
        self.lines = <Line*>new_array(self.n_lines, sizeof(Line))
        for i, line in enumerate(plan.lines):
            self.lines[i] = Line(
                line.feature, line.is_category, line.first_bound, line.n_bounds, line.first_bin, line.n_bins,
                line.first_attribute, line.missing, line.not_applicable, line.rule, line.chosen, line.category,
                line.required, line.group, line.best, line.worst,
            )
        self.bounds = <double*>new_array(len(plan.bounds), sizeof(double))
        for i, bound in enumerate(plan.bounds):
            self.bounds[i] = bound
        self.attribute_of = <uint8_t*>new_array(len(plan.attribute_of), sizeof(uint8_t))
        for i, attribute in enumerate(plan.attribute_of):
            self.attribute_of[i] = attribute
        self.points_of = <int32_t*>new_array(len(plan.points_of), sizeof(int32_t))
        self.unknown = <uint8_t*>new_array(len(plan.points_of), sizeof(uint8_t))
        for i, (points, unknown) in enumerate(plan.points_of):
            self.points_of[i], self.unknown[i] = points, unknown
        self.rules = <Rule*>new_array(len(plan.rules), sizeof(Rule))
        for i, (first, count) in enumerate(plan.rules):
            self.rules[i] = Rule(first, count)
        self.alternatives = <Alternative*>new_array(len(plan.alternatives), sizeof(Alternative))
        for i, (first, count, required_missing) in enumerate(plan.alternatives):
            self.alternatives[i] = Alternative(first, count, required_missing)
        self.terms = <Term*>new_array(len(plan.terms), sizeof(Term))
        for i, (feature, missing, first, count, codes) in enumerate(plan.terms):
            self.terms[i] = Term(feature, missing, first, count, codes)
        self.intervals = <double*>new_array(2 * len(plan.intervals), sizeof(double))
        for i, (low, high) in enumerate(plan.intervals):
            self.intervals[2 * i], self.intervals[2 * i + 1] = low, high
        self.n_floors = len(plan.floors)
        self.floors = <Floor*>new_array(self.n_floors, sizeof(Floor))
        for i, (category, points, level) in enumerate(plan.floors):
            self.floors[i] = Floor(category, points, level)
        self.n_overrides = len(plan.overrides)
        self.overrides = <Override*>new_array(self.n_overrides, sizeof(Override))
        for i, (rule, floor, decision) in enumerate(plan.overrides):
            self.overrides[i] = Override(rule, floor, decision)
        self.n_groups = len(plan.groups)
        self.groups = <Group*>new_array(self.n_groups, sizeof(Group))
        for i, (best, worst) in enumerate(plan.groups):
            self.groups[i] = Group(best, worst)
            self.weight += worst - best
        for i in range(self.n_lines):
            if self.lines[i].group < 0:
                self.weight += self.lines[i].worst - self.lines[i].best
        self.base = plan.base
        for i in range(4):
            self.bands[i], self.decisions[i] = plan.bands[i], plan.decisions[i]

    def __dealloc__(self):
        free(self.lines)
        free(self.bounds)
        free(self.attribute_of)
        free(self.points_of)
        free(self.unknown)
        free(self.rules)
        free(self.alternatives)
        free(self.terms)
        free(self.intervals)
        free(self.floors)
        free(self.overrides)
        free(self.groups)

    cdef bint holds(self, int32_t rule, const double* row, int32_t required_missing) noexcept nogil:
        """Whether a rule holds of a row. required_missing: bit per category with a required characteristic missing."""
        cdef int32_t a, t, i
        cdef const Alternative* alternative
        cdef const Term* term
        cdef double x
        cdef bint met
        for a in range(self.rules[rule].n_alternatives):
            alternative = &self.alternatives[self.rules[rule].first_alternative + a]
            if alternative.required_missing and not (alternative.required_missing & required_missing):
                continue
            for t in range(alternative.first_term, alternative.first_term + alternative.n_terms):
                term = &self.terms[t]
                x = row[term.feature]
                if isnan(x):
                    met = term.missing
                elif term.codes:
                    met = 0 <= x < 64 and (term.codes >> <int32_t>x) & 1
                else:
                    met = False
                    for i in range(term.first_interval, term.first_interval + term.n_intervals):
                        if self.intervals[2 * i] <= x < self.intervals[2 * i + 1]:
                            met = True
                if not met:
                    break
            else:
                return True
        return False

    cdef int32_t choose(self, const Line* line, double x) noexcept nogil:
        """The attribute of an applicable characteristic for a feature's value. A code that no value has is missing."""
        cdef const double* bounds = &self.bounds[line.first_bound]
        cdef int32_t b, place = 0
        if line.is_category:
            if not 0 <= x < line.n_bins:
                return line.missing
            place = <int32_t>x
        else:
            if isnan(x):
                return line.missing
            for b in range(line.n_bounds):
                place += x >= bounds[b]
        return self.attribute_of[line.first_bin + place]

    cdef void score(self, const double* row, int32_t* points, uint8_t* attributes) noexcept nogil:
        """The attribute and points of every characteristic of one row."""
        cdef int32_t i, attribute
        cdef const Line* line
        for i in range(self.n_lines):
            line = &self.lines[i]
            if line.rule >= 0 and self.holds(line.rule, row, 0) != line.chosen:
                attribute = line.not_applicable
            else:
                attribute = self.choose(line, row[line.feature])
            attributes[i] = <uint8_t>attribute
            points[i] = self.points_of[line.first_attribute + attribute]

    cdef void sum_up(self, const int32_t* points, const uint8_t* attributes, Outcome* out) noexcept nogil:
        """What follows from points and attributes alone: sums, completeness, range, band and category floors."""
        cdef int32_t i, level
        cdef uint64_t open_groups = 0
        cdef const Line* line
        memset(out, 0, sizeof(Outcome))
        out.score = self.base
        out.weight = self.weight
        for i in range(self.n_lines):
            line = &self.lines[i]
            out.score += points[i]
            out.categories[line.category] += points[i]
            if self.unknown[line.first_attribute + attributes[i]]:
                out.low -= points[i]
                out.high -= points[i]
                if line.group < 0:
                    out.low += line.best
                    out.high += line.worst
                else:
                    open_groups |= 1ull << line.group
            elif line.group < 0:
                out.known += line.worst - line.best
        for i in range(self.n_groups):
            if open_groups >> i & 1:
                out.low += self.groups[i].best
                out.high += self.groups[i].worst
            else:
                out.known += self.groups[i].worst - self.groups[i].best
        out.low += out.score
        out.high += out.score
        for level in range(4):
            if out.score >= self.bands[level]:
                out.level = level
        for i in range(self.n_floors):
            if out.categories[self.floors[i].category] >= self.floors[i].points:
                out.floors |= 1ull << i
                if self.floors[i].level > out.level:
                    out.level = self.floors[i].level

    cdef void decide(self, Outcome* out) noexcept nogil:
        """Raise the level by the overrides that held; the decision follows from both. Nothing lowers."""
        cdef int32_t i
        for i in range(self.n_overrides):
            if out.overrides >> i & 1 and self.overrides[i].floor > out.level:
                out.level = self.overrides[i].floor
        out.decision = self.decisions[out.level]
        for i in range(self.n_overrides):
            if out.overrides >> i & 1 and self.overrides[i].decision > out.decision:
                out.decision = self.overrides[i].decision

    cdef void conclude(
        self, const double* row, const int32_t* points, const uint8_t* attributes, Outcome* out
    ) noexcept nogil:
        """The whole outcome of a scored row, overrides included."""
        cdef int32_t i, required_missing = 0
        cdef const Line* line
        self.sum_up(points, attributes, out)
        for i in range(self.n_lines):
            line = &self.lines[i]
            if line.required and self.unknown[line.first_attribute + attributes[i]]:
                required_missing |= 1 << line.category
        for i in range(self.n_overrides):
            if self.holds(self.overrides[i].rule, row, required_missing):
                out.overrides |= 1ull << i
        self.decide(out)


def score_rows(
    Card card not None, const double[:, ::1] rows not None, int32_t[:, ::1] points not None,
    uint8_t[:, ::1] attributes not None
):
    """Points and attribute of every characteristic for each row.

    rows: (n, n_features) float64, C-contiguous, NaN = missing.  points: (n, n_characteristics) int32, hundredths,
    written.  attributes: (n, n_characteristics) uint8, written.  Raises ShapeError before any write.
    Source: PMML 4.4 Scorecard, first matching attribute.
    """
    cdef Py_ssize_t n = rows.shape[0], m = card.n_characteristics, i
    if rows.shape[1] != card.n_features:
        raise ShapeError(f"rows have {rows.shape[1]} columns, the model has {card.n_features} features")
    if points.shape[0] != n or points.shape[1] != m or attributes.shape[0] != n or attributes.shape[1] != m:
        raise ShapeError(f"points and attributes must be {n} by {m}")
    if n == 0 or m == 0 or card.n_features == 0:
        return
    with nogil:
        for i in range(n):
            card.score(&rows[i, 0], &points[i, 0], &attributes[i, 0])


def conclude_row(Card card not None, const double[::1] row not None):
    """Everything that follows from one row, as a dict of plain numbers: for tests and for looking into a model."""
    cdef Outcome out
    if row.shape[0] != card.n_features:
        raise ShapeError(f"the row has {row.shape[0]} columns, the model has {card.n_features} features")
    if card.n_features == 0:
        raise ShapeError("the model has no features")
    cdef int32_t* points = <int32_t*>new_array(card.n_lines, sizeof(int32_t))
    cdef uint8_t* attributes = <uint8_t*>new_array(card.n_lines, sizeof(uint8_t))
    try:
        card.score(&row[0], points, attributes)
        card.conclude(&row[0], points, attributes, &out)
        return {
            "points": [points[i] for i in range(card.n_lines)],
            "attributes": [attributes[i] for i in range(card.n_lines)],
            "score": out.score, "low": out.low, "high": out.high, "known": out.known, "weight": out.weight,
            "categories": [out.categories[i] for i in range(N_CATEGORIES)],
            "overrides": out.overrides, "floors": out.floors, "level": out.level, "decision": out.decision,
        }
    finally:
        free(points)
        free(attributes)
