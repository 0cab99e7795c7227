# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""How alike two names are, 0 to 1.

# Design: equal words are paired first, then those alike by weighted edit distance, best first, also two neighbours
# against one word. What is matched, unlike on both sides, and extra on one are sums of whole numbers, so the score is
# one division of integers and the same everywhere. What is unlike on both sides costs several times what is extra on
# one, and that the less, the more full words are common:
#
#     score = matched / (matched + a * unlike + b * extra / matched)
#
# For organisations a share of the score is how alike the names are as sorted strings (longest common subsequence). A
# pair is examined only where lengths and letters allow it to be alike (PERF: benchmarks/screening.py, mean).
"""

from libc.stdint cimport uint32_t
from libc.string cimport memcmp, memcpy, memset

from core.normal cimport LEGAL_FORM, Name, is_number

__all__ = ["compare", "similarity"]

cdef extern from *:
    int popcount "__builtin_popcount"(uint32_t x) nogil
    int popcount64 "__builtin_popcountll"(uint64_t x) nogil

cdef enum:
    # Costs of an edit, in quarters of a plain one.
    PLAIN = 4
    ALIKE = 2                        # one vowel for another, one consonant for another of its sound
    SOFT_GAP = 3                     # a vowel or h too many
    DOUBLED = 2                      # a letter doubled
    SWAPPED = 3                      # two neighbours in the other order
    LEAST_COST = 2                   # of any edit
    SHORT_SIMILAR = 650              # the same of words of three letters at most
    FULL_WORD = 100000               # thousandths of hundredths
    INITIAL = 700                    # thousandths: an initial and a name that begins with it
    JOINED_SIMILAR = 850             # thousandths; two words against one have to be more alike than two words
    PERSON_UNLIKE = 200              # a and b above, in hundredths
    PERSON_EXTRA = 60
    ORGANISATION_UNLIKE = 150
    ORGANISATION_EXTRA = 70
    MAX_PAIRS = MAX_WORDS * MAX_WORDS + 2 * MAX_WORDS * (MAX_WORDS - 1)

cdef double WHOLE_SHARE = 0.3        # of an organisation's score
NUMBERS_DIFFER = 0.05    # beyond what they weigh as words
BELOW_EQUAL = 0.99       # the most that names reach that are not equal

cdef uint8_t[128][128] SUBSTITUTE
cdef uint8_t[128] GAP
cdef const char* VOWELS = b"aeiouy"
# Letters that transliterations use for one another.
_SOUNDS = ("ckqgx", "szxc", "dt", "bp", "fvw", "gj", "mn", "vb", "jy", "wu", "lr", "aeiouy")


cdef int _fill_costs() except -1:
    cdef int x, y
    for x in range(128):
        GAP[x] = PLAIN
        for y in range(128):
            SUBSTITUTE[x][y] = 0 if x == y else PLAIN
    for group in _SOUNDS:
        for first in group:
            for second in group:
                if first != second:
                    SUBSTITUTE[<int>ord(first)][<int>ord(second)] = ALIKE
    for first in "aeiouyh":
        GAP[<int>ord(first)] = SOFT_GAP
    return 0


_fill_costs()


cdef inline int _gap(const uint8_t* s, int i) noexcept nogil:
    return DOUBLED if i > 0 and s[i] == s[i - 1] else GAP[s[i]]


cdef int _cost(const uint8_t* a, int n_a, const uint8_t* b, int n_b, int most) noexcept nogil:
    """Weighted edit distance with swaps (optimal string alignment), or more than `most` where it is more."""
    cdef int[2 * MAX_LETTERS + 2] row_0, row_1, row_2
    cdef int[2 * MAX_LETTERS + 2] gaps
    cdef int* before_last = row_0
    cdef int* last = row_1
    cdef int* now = row_2
    cdef int* spare
    cdef int i, k, cost, gap_a, least, least_before = 0
    last[0] = 0
    for k in range(n_b):
        gaps[k] = _gap(b, k)
        last[k + 1] = last[k] + gaps[k]
    for i in range(n_a):
        gap_a = _gap(a, i)
        now[0] = last[0] + gap_a
        least = now[0]
        for k in range(n_b):
            cost = last[k] + SUBSTITUTE[a[i]][b[k]]
            if last[k + 1] + gap_a < cost:
                cost = last[k + 1] + gap_a
            if now[k] + gaps[k] < cost:
                cost = now[k] + gaps[k]
            if i and k and a[i] == b[k - 1] and a[i - 1] == b[k] and a[i] != a[i - 1]:
                if before_last[k - 1] + SWAPPED < cost:
                    cost = before_last[k - 1] + SWAPPED
            now[k + 1] = cost
            if cost < least:
                least = cost
        if least > most and least_before > most:
            return most + 1
        least_before = least
        spare = before_last
        before_last, last, now = last, now, spare
    return last[n_b]


cdef int similarity_of(const uint8_t* a, int n_a, const uint8_t* b, int n_b, int least) noexcept nogil:
    """Thousandths; 0 where it is below `least`."""
    cdef int longer = n_a if n_a > n_b else n_b
    cdef int most = (1000 - least) * longer // 250
    cdef int difference = n_a - n_b if n_a > n_b else n_b - n_a
    cdef int cost, found
    if difference * LEAST_COST > most:
        return 0
    cost = _cost(a, n_a, b, n_b, most)
    if cost > most:
        return 0
    found = 1000 - 250 * cost // longer
    return found if found >= least else 0


cdef bint may_be_similar(uint32_t mask_a, uint32_t mask_b, int n_a, int n_b, int least) noexcept nogil:
    """Each letter that only one of them has needs an edit of its own."""
    cdef int most = (1000 - least) * (n_a if n_a > n_b else n_b) // 250
    return popcount(mask_a & ~mask_b) * LEAST_COST <= most and popcount(mask_b & ~mask_a) * LEAST_COST <= most


cdef inline bint _equal(const Word* a, const Word* b) noexcept nogil:
    return a.mask == b.mask and a.length == b.length and memcmp(a.text, b.text, a.length) == 0


cdef int least_similar(int n_a, int n_b) noexcept nogil:
    """How alike two words have to be to be taken for one, in thousandths; one plain edit in three letters passes."""
    if n_a + n_b < 5:
        return 1000
    return CLEARLY_SIMILAR if n_a > 3 or n_b > 3 else SHORT_SIMILAR


cdef int _pair_similarity(const Word* a, const Word* b, bint person) noexcept nogil:
    """Thousandths of two words that are not equal; 0 where they are two words."""
    if a.length == 1 or b.length == 1:
        if person and a.text[0] == b.text[0] and not is_number(a, True) and not is_number(b, True):
            return INITIAL
        return 0
    if (a.kind == LEGAL_FORM and b.kind == LEGAL_FORM) or is_number(a, person) or is_number(b, person):
        return 0
    cdef int least = least_similar(a.length, b.length)
    if not may_be_similar(a.mask, b.mask, a.length, b.length, least):
        return 0
    return similarity_of(a.text, a.length, b.text, b.length, least)


cdef int _joined_similarity(const Word* first, const Word* second, const Word* whole, bint person) noexcept nogil:
    cdef uint8_t[2 * MAX_LETTERS] text
    cdef int length = first.length + second.length
    if is_number(first, person) or is_number(second, person) or is_number(whole, person):
        return 0
    if not may_be_similar(first.mask | second.mask, whole.mask, length, whole.length, JOINED_SIMILAR):
        return 0
    memcpy(text, first.text, first.length)
    memcpy(text + first.length, second.text, second.length)
    return similarity_of(text, length, whole.text, whole.length, JOINED_SIMILAR)


cdef inline bint _comes_before(const Pair* x, const Pair* y) noexcept nogil:
    if x.similarity != y.similarity:
        return x.similarity > y.similarity
    if x.a != y.a:
        return x.a < y.a
    if x.b != y.b:
        return x.b < y.b
    return x.joined < y.joined


cdef inline void _insert(Pair* pairs, int* count, int similarity, int a, int b, Joined joined) noexcept nogil:
    cdef Pair new
    cdef int at = count[0]
    new.similarity, new.a, new.b, new.joined, new.weight = similarity, a, b, joined, 0
    while at > 0 and _comes_before(&new, &pairs[at - 1]):
        pairs[at] = pairs[at - 1]
        at -= 1
    pairs[at] = new
    count[0] += 1


cdef void make_whole(const Word* words, int count, Whole* out) noexcept nogil:
    _write_sorted(words, count, out.text, &out.length)
    cdef int i, symbol
    out.n_blocks = (out.length + 63) // 64
    memset(out.places, 0, SYMBOLS * out.n_blocks * sizeof(uint64_t))
    for i in range(out.length):
        symbol = _symbol(out.text[i])
        out.places[symbol * out.n_blocks + i // 64] |= <uint64_t>1 << (i % 64)


cdef inline int _symbol(uint8_t c) noexcept nogil:
    return c - 97 if c >= 97 else c - 48 + 26 if c >= 48 else 36


cdef void _write_sorted(const Word* words, int count, uint8_t* text, int* length) noexcept nogil:
    cdef int[MAX_WORDS] order
    cdef int i, at, n
    cdef const Word* word
    for i in range(count):
        at = i
        while at > 0 and _text_before(&words[i], &words[order[at - 1]]):
            order[at] = order[at - 1]
            at -= 1
        order[at] = i
    n = 0
    for i in range(count):
        word = &words[order[i]]
        if i:
            text[n] = 32
            n += 1
        memcpy(text + n, word.text, word.length)
        n += word.length
    length[0] = n


cdef inline bint _text_before(const Word* x, const Word* y) noexcept nogil:
    cdef int shorter = x.length if x.length < y.length else y.length
    cdef int order = memcmp(x.text, y.text, shorter)
    return order < 0 or (order == 0 and x.length < y.length)


cdef double _whole_likeness(const Whole* a, const Word* b, int n_b) noexcept nogil:
    """2 * longest common subsequence / both lengths.

    Source: H. Hyyrö, Bit-parallel LCS-length computation revisited, 2004.
    """
    cdef uint8_t[MAX_WHOLE] text
    cdef uint64_t[BLOCKS] rows
    cdef uint64_t row, match, total, carry, carried
    cdef int i, k, length, symbol, common = 0
    _write_sorted(b, n_b, text, &length)
    for k in range(a.n_blocks):
        rows[k] = ~<uint64_t>0
    for i in range(length):
        symbol = _symbol(text[i]) * a.n_blocks
        carry = 0
        for k in range(a.n_blocks):
            row = rows[k]
            match = row & a.places[symbol + k]
            total = row + match
            carried = total < row
            total += carry
            carry = carried | (total < carry)
            rows[k] = total | (row - match)
    for k in range(a.n_blocks):
        row = ~rows[k]
        if k == a.n_blocks - 1 and a.length % 64:
            row &= (<uint64_t>1 << (a.length % 64)) - 1
        common += popcount64(row)
    return 2.0 * common / (a.length + length)


cdef double words_score(int64_t matched, int64_t unlike, int64_t extra, bint person) noexcept nogil:
    """All in thousandths of hundredths of a full word; matched is above 0. The sums are below 2 ** 53, so exact."""
    cdef int64_t unlike_cost = PERSON_UNLIKE if person else ORGANISATION_UNLIKE
    cdef int64_t extra_cost = PERSON_EXTRA if person else ORGANISATION_EXTRA
    cdef int64_t common = 100 * matched * matched
    return <double>common / <double>(common + unlike_cost * unlike * matched + extra_cost * FULL_WORD * extra)


cdef double compare_words(
    const Word* a, int n_a, const Whole* whole_a, const Word* b, int n_b, bint person, double floor, Outcome* out
) noexcept nogil:
    """The score, not rounded; 0 where it is below `floor`. whole_a: of the first name; organisations only.

    out: filled where it is not NULL.
    """
    cdef Pair[MAX_PAIRS] pairs
    cdef bint[MAX_WORDS] free_a, free_b
    cdef bint second_a, second_b
    cdef int i, k, n_pairs = 0, similarity, n_free_a = n_a, n_free_b = n_b, weight, weight_b
    cdef int64_t matched = 0, unlike = 0, left_a = 0, left_b = 0, extra
    cdef bint number_a = False, number_b = False
    cdef double score, whole = -1.0
    cdef Pair* pair
    if out != NULL:
        out.n_pairs, out.whole, out.numbers_differ, out.equal = 0, -1.0, False, False
    for k in range(n_b):
        free_b[k] = True
    for i in range(n_a):
        free_a[i] = True
        for k in range(n_b):
            if free_b[k] and _equal(&a[i], &b[k]):
                free_a[i] = free_b[k] = False
                n_free_a -= 1
                n_free_b -= 1
                matched += 1000 * a[i].weight[person]
                if out != NULL:
                    _note(out, 1000, i, k, NEITHER, a[i].weight[person])
                break
    if n_free_a == 0 and n_free_b == 0 and n_a:
        if out != NULL:
            out.equal = True
            memcpy(out.left_a, free_a, sizeof(free_a))
            memcpy(out.left_b, free_b, sizeof(free_b))
        return 1.0
    if n_free_a and n_free_b:
        for i in range(n_a):
            if not free_a[i]:
                continue
            for k in range(n_b):
                if not free_b[k]:
                    continue
                similarity = _pair_similarity(&a[i], &b[k], person)
                if similarity:
                    _insert(pairs, &n_pairs, similarity, i, k, NEITHER)
                if i + 1 < n_a and free_a[i + 1]:
                    similarity = _joined_similarity(&a[i], &a[i + 1], &b[k], person)
                    if similarity:
                        _insert(pairs, &n_pairs, similarity, i, k, FIRST)
                if k + 1 < n_b and free_b[k + 1]:
                    similarity = _joined_similarity(&b[k], &b[k + 1], &a[i], person)
                    if similarity:
                        _insert(pairs, &n_pairs, similarity, i, k, SECOND)
    for i in range(n_pairs):
        pair = &pairs[i]
        second_a, second_b = pair.joined == FIRST, pair.joined == SECOND
        if not (free_a[pair.a] and free_b[pair.b] and free_a[pair.a + second_a] and free_b[pair.b + second_b]):
            continue
        weight, weight_b = a[pair.a].weight[person], b[pair.b].weight[person]
        free_a[pair.a] = free_b[pair.b] = free_a[pair.a + second_a] = free_b[pair.b + second_b] = False
        if pair.joined == NEITHER:
            weight = min(weight, weight_b)
        else:
            weight += a[pair.a + 1].weight[person] if second_a else 0
            weight_b += b[pair.b + 1].weight[person] if second_b else 0
            weight = max(weight, weight_b)
        matched += pair.similarity * weight
        unlike += (1000 - pair.similarity) * weight
        if out != NULL:
            _note(out, pair.similarity, pair.a, pair.b, <Joined>pair.joined, weight)
    for i in range(n_a):
        if free_a[i]:
            left_a += 1000 * a[i].weight[person]
            number_a = number_a or is_number(&a[i], person)
    for k in range(n_b):
        if free_b[k]:
            left_b += 1000 * b[k].weight[person]
            number_b = number_b or is_number(&b[k], person)
    if out != NULL:
        out.numbers_differ = number_a and number_b
        memcpy(out.left_a, free_a, sizeof(free_a))
        memcpy(out.left_b, free_b, sizeof(free_b))
    if matched == 0:
        return 0.0
    unlike += min(left_a, left_b)
    extra = left_a - left_b if left_a > left_b else left_b - left_a
    score = words_score(matched, unlike, extra, person)
    if not person:
        if (1.0 - WHOLE_SHARE) * score + WHOLE_SHARE < floor:
            return 0.0
        whole = _whole_likeness(whole_a, b, n_b)
        score = (1.0 - WHOLE_SHARE) * score + WHOLE_SHARE * whole
    if out != NULL:
        out.whole = whole
    if number_a and number_b:
        score -= NUMBERS_DIFFER
    score = min(BELOW_EQUAL, max(0.0, score))
    return score if score >= floor else 0.0


cdef double bound_of(int matched, int weight, int letters, int all_letters, bint person) noexcept nogil:
    """The most that a name scores which shares no more than this weight and these letters of a name with the other."""
    cdef double score
    if matched >= weight:
        return 1.0
    if matched <= 0:
        return 0.0
    score = words_score(1000 * <int64_t>matched, 0, 1000 * <int64_t>(weight - matched), person)
    if person:
        return score
    return (1.0 - WHOLE_SHARE) * score + WHOLE_SHARE * (2.0 * letters / (letters + all_letters))


cdef double promise_of(int64_t matched, int64_t asked, int64_t listed, bint person) noexcept nogil:
    """The score of words alone, where of the weights asked and listed only `matched` is common."""
    cdef int64_t extra = asked - listed if asked > listed else listed - asked
    return words_score(matched, min(asked, listed) - matched, extra, person) if matched else 0.0


cdef inline void _note(Outcome* out, int similarity, int a, int b, Joined joined, int weight) noexcept nogil:
    cdef Pair* pair = &out.pairs[out.n_pairs]
    pair.similarity, pair.a, pair.b, pair.joined, pair.weight = similarity, a, b, joined, weight
    out.n_pairs += 1


cdef double rounded(double score) noexcept nogil:
    """To four digits. Written out, since the C library's rounding may follow the mode of the processor."""
    return <double><int64_t>(score * 10000.0 + 0.5) / 10000.0


def compare(Name a not None, Name b not None, person):
    """How alike two names are, 0 to 1, rounded to four digits; 1 only where they have the same words.

    person: how to compare; None = both ways, the better counts.
    """
    cdef Whole whole
    cdef double score = 0.0
    cdef bint as_person = person is None or person, as_organisation = person is None or not person
    with nogil:
        if as_organisation:
            make_whole(a.words.words, a.words.count, &whole)
            score = compare_words(a.words.words, a.words.count, &whole, b.words.words, b.words.count, False, 0.0, NULL)
        if as_person:
            score = max(score, compare_words(
                a.words.words, a.words.count, NULL, b.words.words, b.words.count, True, 0.0, NULL))
    return rounded(score)


def similarity(str a not None, str b not None):
    """How alike two words of a name are, 0 to 1: lower case letters and digits, at most 32 of them."""
    first, second = a.encode(), b.encode()
    if not (0 < len(first) <= MAX_LETTERS and 0 < len(second) <= MAX_LETTERS):
        raise ValueError(f"words have 1 to {MAX_LETTERS} letters, not {len(first)} and {len(second)}")
    if not (first + second).isalnum():
        raise ValueError(f"words have ASCII letters and digits only: {a!r}, {b!r}")
    return similarity_of(first, len(first), second, len(second), 1) / 1000.0
