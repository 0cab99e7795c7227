# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Counting assessments: how many came to which end, what was missing in them, and which rules held."""

from libc.stdint cimport int32_t
from libc.stdlib cimport free

cimport cython

from core.kernel cimport Card
from core.memory cimport new_array
from core.scorer cimport Assessed, Scorer

from core.model import DECISIONS, LEVELS

__all__ = ["Tally"]

cdef enum:
    N_DECISIONS = 3


@cython.final
cdef class Tally:
    """Adds what assessments of one scorer came to, to numbers that lie elsewhere.

    numbers: (n,) float64, written.  outcomes: places in it by level and decision, level by level.
    scores: the first of len(score_bounds) + 2 places: of the scores up to each bound (hundredths, ascending) and above
    all of them, and of the sum of scores, in points.  missing: a place for each characteristic, of its feature not
    being known.  overrides, floors: a place for each of the model's.
    Raises ValueError for places that do not fit.
    """

    cdef readonly Scorer scorer
    cdef double[::1] numbers
    cdef int32_t* outcomes
    cdef int32_t* bounds
    cdef int32_t* missing
    cdef int32_t* overrides
    cdef int32_t* floors
    cdef int32_t scores, n_bounds

    def __cinit__(
        self, Scorer scorer not None, double[::1] numbers not None, *, outcomes, scores, score_bounds, missing,
        overrides, floors
    ):
        cdef Card card = scorer.card
        wanted = {
            "outcomes": (outcomes, len(LEVELS) * len(DECISIONS)), "missing": (missing, card.n_lines),
            "overrides": (overrides, card.n_overrides), "floors": (floors, card.n_floors),
        }
        for name, (places, count) in wanted.items():
            if len(places) != count:
                raise ValueError(f"{name}: the model needs {count} places, not {len(places)}")
            if not all(0 <= place < numbers.shape[0] for place in places):
                raise ValueError(f"{name}: a place is not one of {numbers.shape[0]} numbers")
        if list(score_bounds) != sorted(score_bounds):
            raise ValueError("score_bounds must ascend")
        if not 0 <= scores <= numbers.shape[0] - len(score_bounds) - 2:
            raise ValueError(f"scores: not all places are of {numbers.shape[0]} numbers")
        self.scorer, self.numbers = scorer, numbers
        self.scores, self.n_bounds = scores, len(score_bounds)
        self.outcomes, self.bounds = _copied(outcomes), _copied(score_bounds)
        self.overrides, self.floors = _copied(overrides), _copied(floors)
        self.missing = _copied(missing)

    def __dealloc__(self):
        free(self.outcomes)
        free(self.bounds)
        free(self.missing)
        free(self.overrides)
        free(self.floors)

    def add(self, Assessed assessed not None):
        """Count one assessment. Raises ValueError for one of another scorer."""
        if assessed.scorer is not self.scorer:
            raise ValueError("the assessment is of another scorer")
        self.count(assessed)

    cdef void count(self, Assessed assessed) noexcept:
        cdef int32_t i, bucket = 0
        cdef int32_t score = assessed.outcome.score
        cdef Card card = self.scorer.card
        self.numbers[self.outcomes[assessed.outcome.level * N_DECISIONS + assessed.outcome.decision]] += 1.0
        while bucket < self.n_bounds and score > self.bounds[bucket]:
            bucket += 1
        self.numbers[self.scores + bucket] += 1.0
        self.numbers[self.scores + self.n_bounds + 1] += score / 100.0
        for i in range(card.n_lines):
            if card.unknown[card.lines[i].first_attribute + assessed.attributes[i]]:
                self.numbers[self.missing[i]] += 1.0
        for i in range(card.n_overrides):
            if assessed.outcome.overrides >> i & 1:
                self.numbers[self.overrides[i]] += 1.0
        for i in range(card.n_floors):
            if assessed.outcome.floors >> i & 1:
                self.numbers[self.floors[i]] += 1.0


cdef int32_t* _copied(places) except NULL:
    cdef Py_ssize_t i
    cdef int32_t* made = <int32_t*>new_array(len(places) + 1, sizeof(int32_t))
    for i in range(len(places)):
        made[i] = places[i]
    return made
