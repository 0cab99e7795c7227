# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The scorer: one model made ready, profiles in, assessed profiles out; each can be recorded, restored and rendered.

# Design: an answer is assembled from bytes prepared when the model is loaded (core.prepared); only numbers are
formatted for each answer (PERF: benchmarks/test_core.py::test_render). A record holds attributes (their points follow)
and observed values, not the answer: the model of the same sha256 turns it back into the same bytes.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport NAN, isnan
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

cimport cython

from core.features cimport Extractor
from core.kernel cimport N_CATEGORIES, Card, Line
from core.memory cimport new_array
from core.prepared cimport PreparedTexts
from core.ratios cimport N_DISTRESS, Books, Distress, zone_of
from core.rounding cimport round9, write_hundredths, write_number
from core.writing cimport put, put_bytes, put_date, put_identity, put_text

from core.plan import card_plan
from core.validity import ProfileInvalid

__all__ = ["RECORD_FORMAT", "Assessed", "RecordDamaged", "Scorer"]

RECORD_FORMAT = 1

cdef enum:
    TOP_REASONS = 6
    MAX_LINES = 512
    EPOCH = 719_163                      # date(1970, 1, 1).toordinal()
    LAST_DAY = 3_652_059                 # date(9999, 12, 31).toordinal()


class RecordDamaged(Exception):
    """A record that this model cannot have written."""


cdef packed struct Header:               # of a record, little-endian like every machine this runs on
    uint8_t format
    uint8_t level
    uint8_t decision
    int8_t chosen
    uint16_t n_lines
    int32_t as_of
    int32_t score
    uint64_t overrides
    uint64_t floors


@cython.final
cdef class Scorer:
    """One model, ready to assess profiles of the catalogue's types.

    model: core.model.Model, sound.  catalogue: core.catalogue.Catalogue.
    """

    def __cinit__(self, model, catalogue):
        cdef int i
        self.model = model
        self.card = Card(card_plan(model))
        if self.card.n_lines > MAX_LINES:
            raise ValueError(f"a model has at most {MAX_LINES} characteristics")
        self.extractor = Extractor(model, catalogue)
        self.texts = PreparedTexts(model)
        for i in range(self.card.n_lines):
            self.n_number_lines += not self.card.lines[i].is_category
        self.record_bytes = (
            sizeof(Header) + self.card.n_lines + (self.card.n_lines + 7) // 8 + self.n_number_lines * 8
            + (self.card.n_lines - self.n_number_lines) + 2 + N_DISTRESS * 12
        )

    def __dealloc__(self):
        free(self.scratch)

    cdef char* _room(self, Py_ssize_t wanted) except NULL:
        cdef char* grown
        if wanted > self.capacity:
            grown = <char*>realloc(self.scratch, wanted)
            if grown == NULL:
                raise MemoryError
            self.scratch, self.capacity = grown, wanted
        return self.scratch

    def assess(self, profile, findings, int as_of):
        """Assess one profile. as_of: proleptic ordinal of the day of scoring. Raises ProfileInvalid."""
        cdef Assessed assessed = Assessed.__new__(Assessed, self)
        cdef Books books
        cdef Work work
        _check_day(as_of)
        self.extractor.fill(profile, findings, as_of, assessed.row, &books, &assessed.distress)
        assessed.as_of = as_of
        work = assessed.work()
        _conclude(self.card, &work)
        return assessed

    @cython.boundscheck(True)
    def assess_many(self, list profiles not None, list findings not None, int as_of):
        """Assess each profile: a list of Assessed, or ProfileInvalid in the place of one that is not valid.

        The arithmetic frees the GIL.
        """
        cdef Py_ssize_t n = len(profiles), i, scored = 0
        cdef Assessed assessed
        cdef Books books
        cdef Card card = self.card
        cdef Work* works
        if len(findings) != n:
            raise ValueError(f"{n} profiles and {len(findings)} findings")
        _check_day(as_of)
        answers = []
        works = <Work*>new_array(n, sizeof(Work))
        try:
            for i in range(n):
                assessed = Assessed.__new__(Assessed, self)
                try:
                    self.extractor.fill(profiles[i], findings[i], as_of, assessed.row, &books, &assessed.distress)
                except ProfileInvalid as invalid:
                    answers.append(invalid)
                    continue
                assessed.as_of = as_of
                answers.append(assessed)
                works[scored] = assessed.work()
                scored += 1
            with nogil:
                for i in range(scored):
                    _conclude(card, &works[i])
        finally:
            free(works)
        return answers

    def restore(self, bytes record not None):
        """The Assessed that wrote a record. Raises RecordDamaged for what this model cannot have written."""
        cdef Assessed assessed = Assessed.__new__(Assessed, self)
        cdef const char* at = PyBytes_AS_STRING(record)
        cdef const char* end = at + PyBytes_GET_SIZE(record)
        cdef const char* given
        cdef Header header
        cdef int i
        if end - at < <Py_ssize_t>sizeof(Header):
            raise RecordDamaged("it is too short")
        memcpy(&header, at, sizeof(Header))
        if header.format != RECORD_FORMAT or header.n_lines != self.card.n_lines:
            raise RecordDamaged(f"format {header.format} with {header.n_lines} characteristics is not of this model")
        if not 1 <= header.as_of <= LAST_DAY:
            raise RecordDamaged(f"{header.as_of} is not the ordinal of a day")
        at += sizeof(Header)
        memcpy(assessed.attributes, _take(&at, end, self.card.n_lines), self.card.n_lines)
        given = _take(&at, end, (self.card.n_lines + 7) // 8)
        for i in range(self.card.n_lines):
            assessed.observed[i] = NAN
            if given[i // 8] >> i % 8 & 1:
                if self.card.lines[i].is_category:
                    assessed.observed[i] = <uint8_t>_take(&at, end, 1)[0]
                else:
                    memcpy(&assessed.observed[i], _take(&at, end, 8), 8)
            self._restore_line(assessed, i)
        given = _take(&at, end, 2)
        for i in range(N_DISTRESS):
            assessed.distress.value[i], assessed.distress.lacking[i] = NAN, 0
            if given[0] >> i & 1:
                memcpy(&assessed.distress.value[i], _take(&at, end, 8), 8)
            if given[1] >> i & 1:
                memcpy(&assessed.distress.lacking[i], _take(&at, end, 4), 4)
        if at != end:
            raise RecordDamaged("it is too long")
        assessed.distress.chosen = header.chosen
        self._check_distress(&assessed.distress)
        self.card.sum_up(assessed.points, assessed.attributes, &assessed.outcome)
        if assessed.outcome.score != header.score or assessed.outcome.floors != header.floors:
            raise RecordDamaged("the points of a record do not add up to its score")
        if self.card.n_overrides < 64 and header.overrides >> self.card.n_overrides:
            raise RecordDamaged("the model has no such override")
        assessed.outcome.overrides = header.overrides
        self.card.decide(&assessed.outcome)
        if assessed.outcome.level != header.level or assessed.outcome.decision != header.decision:
            raise RecordDamaged("the level or decision of a record does not follow from it")
        assessed.as_of = header.as_of
        return assessed

    cdef int _restore_line(self, Assessed assessed, int i) except -1:
        """Check that a characteristic's attribute follows from what it saw, and give it its points."""
        cdef const Line* line = &self.card.lines[i]
        cdef int32_t attribute = assessed.attributes[i]
        cdef int32_t end = self.texts.n_attributes
        if i + 1 < self.card.n_lines:
            end = self.card.lines[i + 1].first_attribute
        if line.is_category and assessed.observed[i] >= self.texts.n_codes[i]:
            raise RecordDamaged("a category has no such value")
        if not _is_shown(assessed.observed[i]):
            raise RecordDamaged("an observed value has more than nine digits")
        if attribute >= end - line.first_attribute:
            raise RecordDamaged("a characteristic has no such attribute")
        if attribute != line.not_applicable and attribute != self.card.choose(line, assessed.observed[i]):
            raise RecordDamaged("an attribute does not follow from the observed value")
        assessed.points[i] = self.card.points_of[line.first_attribute + attribute]
        return 0

    cdef int _check_distress(self, const Distress* distress) except -1:
        cdef int i
        for i in range(N_DISTRESS):
            if not _is_shown(distress.value[i]) or distress.lacking[i] & ~self.texts.input_masks[i]:
                raise RecordDamaged("a distress model has no such value or input")
        if not -1 <= distress.chosen < N_DISTRESS or (distress.chosen >= 0 and isnan(distress.value[distress.chosen])):
            raise RecordDamaged("the distress model used has no value")
        return 0


@cython.final
cdef class Assessed:
    """One profile scored under one model. Score and points are hundredths."""

    def __cinit__(self, Scorer scorer not None):
        cdef Py_ssize_t n = scorer.card.n_lines, features = scorer.card.n_features
        cdef char* block = <char*>new_array((features + n) * sizeof(double) + n * (sizeof(int32_t) + 1), 1)
        self.scorer = scorer
        self.row = <double*>block
        self.observed = self.row + features
        self.points = <int32_t*>(self.observed + n)
        self.attributes = <uint8_t*>(self.points + n)

    def __init__(self, *_):
        raise TypeError("an Assessed is made by a Scorer: by assess, assess_many or restore")

    def __dealloc__(self):
        free(self.row)

    cdef Work work(self) noexcept:
        return Work(self.row, self.observed, self.points, self.attributes, &self.outcome)

    @property
    def score(self):
        """Hundredths."""
        return self.outcome.score

    @property
    def level(self):
        """Index into core.model.LEVELS."""
        return self.outcome.level

    @property
    def decision(self):
        """Index into core.model.DECISIONS."""
        return self.outcome.decision

    @property
    def completeness(self):
        """Share of the model's weight whose feature was known."""
        return <double>self.outcome.known / self.outcome.weight if self.outcome.weight else 1.0

    def record(self):
        """The compact record: attributes (and so points), observed values, distress models and what followed."""
        cdef Scorer scorer = self.scorer
        cdef Card card = scorer.card
        cdef char* begin = scorer._room(scorer.record_bytes)
        cdef char* at = begin
        cdef char* given
        cdef Header header
        cdef int i
        header.format, header.n_lines, header.as_of = RECORD_FORMAT, card.n_lines, self.as_of
        header.level, header.decision, header.chosen = self.outcome.level, self.outcome.decision, self.distress.chosen
        header.score, header.overrides, header.floors = self.outcome.score, self.outcome.overrides, self.outcome.floors
        memcpy(at, &header, sizeof(Header))
        at += sizeof(Header)
        memcpy(at, self.attributes, card.n_lines)
        at += card.n_lines
        given = at
        memset(given, 0, (card.n_lines + 7) // 8)
        at += (card.n_lines + 7) // 8
        for i in range(card.n_lines):
            if isnan(self.observed[i]):
                continue
            given[i // 8] |= <char>(1 << i % 8)
            if card.lines[i].is_category:
                at[0] = <char><int>self.observed[i]
                at += 1
            else:
                memcpy(at, &self.observed[i], 8)
                at += 8
        given = at
        given[0] = given[1] = 0
        at += 2
        for i in range(N_DISTRESS):
            if not isnan(self.distress.value[i]):
                given[0] |= <char>(1 << i)
                memcpy(at, &self.distress.value[i], 8)
                at += 8
            if self.distress.lacking[i]:
                given[1] |= <char>(1 << i)
                memcpy(at, &self.distress.lacking[i], 4)
                at += 4
        return PyBytes_FromStringAndSize(begin, at - begin)

    def render(
        self, bytes id, bytes business_id not None, bint full, bytes screening not None, bytes evidence not None,
        bint degraded=False, bytes effective=None
    ):
        """The answer as JSON.

        id: 16 bytes of a UUIDv7, or None for an assessment that is not recorded.  business_id, screening, evidence,
        effective: JSON.  full: every characteristic and all distress models, else at most TOP_REASONS reasons and the
        model used.
        """
        cdef Scorer scorer = self.scorer
        cdef PreparedTexts texts = scorer.texts
        cdef Py_ssize_t room = (
            texts.full_bytes + len(business_id) + len(screening) + len(evidence)
            + (len(effective) if effective is not None else 0)
        )
        cdef char* begin = scorer._room(room)
        cdef char* at = begin
        at = put(at, b'{"id":')
        at = put_identity(at, id)
        at = put(at, b',"as_of":"')
        at = put_date(at, self.as_of - EPOCH)
        at = put(at, b'","business_id":')
        at = put_bytes(at, business_id)
        at = self._put_outcome(at)
        at = put(at, b',"reasons":[')
        at = self._put_reasons(at, full)
        at = put(at, b'],"overrides":[')
        at = self._put_overrides(at)
        at = put(at, b'],"screening":')
        at = put_bytes(at, screening)
        at = put(at, b',"evidence":')
        at = put_bytes(at, evidence)
        at = put(at, b',"distress":[')
        at = self._put_distress(at, full)
        at = put(at, b'],"degraded":true,"effective":') if degraded else put(at, b'],"degraded":false,"effective":')
        if effective is not None:
            at = put_bytes(at, effective)
        else:
            at = put(at, b'{"level":')
            at = put_text(at, &texts.level_texts[self.outcome.level])
            at = put(at, b',"decision":')
            at = put_text(at, &texts.decision_texts[self.outcome.decision])
            at = put(at, b',"override_id":null}')
        at = put_text(at, &texts.tail)
        return PyBytes_FromStringAndSize(begin, at - begin)

    cdef char* _put_outcome(self, char* at):
        cdef PreparedTexts texts = self.scorer.texts
        cdef int i, category
        cdef double share = 1.0
        at = put(at, b',"score":')
        at += write_hundredths(at, self.outcome.score)
        at = put(at, b',"level":')
        at = put_text(at, &texts.level_texts[self.outcome.level])
        at = put(at, b',"decision":')
        at = put_text(at, &texts.decision_texts[self.outcome.decision])
        at = put(at, b',"completeness":')
        # four decimals of a share of two integers, rounded down: 1 is written only where nothing is missing
        if self.outcome.weight:
            share = (<int64_t>self.outcome.known * 10000 // self.outcome.weight) / 10000.0
        at += write_number(at, share)
        at = put(at, b',"score_range":[')
        at += write_hundredths(at, self.outcome.low)
        at = put(at, b',')
        at += write_hundredths(at, self.outcome.high)
        at = put(at, b']')
        at = put_text(at, &texts.base_text)
        for i in range(N_CATEGORIES):
            category = texts.category_order[i]
            at = put_text(at, &texts.category_heads[i])
            at += write_hundredths(at, self.outcome.categories[category])
            at = put_text(at, &texts.category_tails[i])
        return put(at, b']')

    cdef char* _put_reasons(self, char* at, bint full):
        cdef Card card = self.scorer.card
        cdef int32_t order[MAX_LINES]
        cdef int32_t above[MAX_LINES]
        cdef int i, k, n = 0, most = card.n_lines if full else TOP_REASONS
        cdef int32_t gain
        for i in range(card.n_lines):
            gain = self.points[i] - card.lines[i].best
            if not full and (gain <= 0 or (n == most and gain <= above[n - 1])):
                continue
            if gain < 0:
                gain = 0
            k = n if n < most else n - 1
            while k > 0 and above[k - 1] < gain:
                above[k], order[k] = above[k - 1], order[k - 1]
                k -= 1
            above[k], order[k] = gain, i
            if n < most:
                n += 1
        for k in range(n):
            if k:
                at = put(at, b',')
            at = self._put_reason(at, order[k])
        return at

    cdef char* _put_reason(self, char* at, int i):
        cdef Scorer scorer = self.scorer
        cdef PreparedTexts texts = scorer.texts
        cdef int32_t attribute = scorer.card.lines[i].first_attribute + self.attributes[i]
        cdef double observed = self.observed[i]
        at = put_text(at, &texts.reason_heads[attribute])
        if isnan(observed):
            at = put(at, b'null')
        elif scorer.card.lines[i].is_category:
            at = put_text(at, &texts.codes[texts.first_code[i] + <int>observed])
        else:
            at += write_number(at, observed)
        return put_text(at, &texts.reason_tails[attribute])

    cdef char* _put_overrides(self, char* at):
        cdef Scorer scorer = self.scorer
        cdef PreparedTexts texts = scorer.texts
        cdef int i, above
        cdef bint first = True
        for i in range(scorer.card.n_overrides):
            if self.outcome.overrides >> i & 1:
                if not first:
                    at = put(at, b',')
                at = put_text(at, &texts.overrides[i])
                first = False
        for i in range(scorer.card.n_floors):
            above = texts.floor_above[i]
            if self.outcome.floors >> i & 1 and not (above >= 0 and self.outcome.floors >> above & 1):
                if not first:
                    at = put(at, b',')
                at = put_text(at, &texts.floors[i])
                first = False
        return at

    cdef char* _put_distress(self, char* at, bint full):
        cdef PreparedTexts texts = self.scorer.texts
        cdef int model, zone, bit
        cdef bint first = True, first_lacking
        for model in range(N_DISTRESS):
            if not full and model != self.distress.chosen:
                continue
            if not first:
                at = put(at, b',')
            first = False
            at = put_text(at, &texts.distress_heads[model])
            zone = zone_of(model, self.distress.value[model])
            if zone < 0:
                at = put(at, b'null,"zone":null,"missing":[')
            else:
                at += write_number(at, self.distress.value[model])
                at = put(at, b',"zone":')
                at = put_text(at, &texts.zones[3 * model + zone])
                at = put(at, b',"missing":[')
            first_lacking = True
            for bit in range(32):
                if self.distress.lacking[model] >> bit & 1:
                    if not first_lacking:
                        at = put(at, b',')
                    at = put_text(at, &texts.inputs[texts.first_input[model] + bit])
                    first_lacking = False
            at = put(at, b'],"used":true}') if model == self.distress.chosen else put(at, b'],"used":false}')
        return at


cdef int _check_day(int as_of) except -1:
    if not 1 <= as_of <= LAST_DAY:
        raise ValueError(f"{as_of} is not the ordinal of a day")
    return 0


cdef inline bint _is_shown(double x) noexcept:
    """Whether a value is missing or one that round9 returned, and so can be written."""
    return isnan(x) or round9(x) == x


cdef void _conclude(Card card, const Work* work) noexcept nogil:
    """Score one row; `observed` holds what each characteristic saw."""
    cdef int i
    card.score(work.row, work.points, work.attributes)
    card.conclude(work.row, work.points, work.attributes, work.outcome)
    for i in range(card.n_lines):
        work.observed[i] = work.row[card.lines[i].feature]


cdef inline const char* _take(const char** at, const char* end, Py_ssize_t count) except NULL:
    """The next bytes of a record, which must be there."""
    cdef const char* start = at[0]
    if end - start < count:
        raise RecordDamaged("it is too short")
    at[0] = start + count
    return start
