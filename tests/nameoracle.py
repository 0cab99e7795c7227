"""Names read and compared slowly and plainly: what core.normal and core.comparison must agree with."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import product
from string import ascii_uppercase

from anyascii import anyascii

from core.words import WORDS

VOWELS = "aeiouy"
SOUNDS = ["ckqgx", "szxc", "dt", "bp", "fvw", "gj", "mn", "vb", "jy", "wu", "lr", VOWELS]
ALIKE = {pair for sound in SOUNDS for pair in product(sound, sound)}
LONGEST_PHRASE = max(map(len, WORDS.phrases))
MAX_LETTERS = 32


def latin(text: str) -> str:
    """ASCII alone; case is kept."""
    if text.isascii():
        return text
    out = []
    for c in unicodedata.normalize("NFKD", text):
        if c.isascii():
            out.append(c)
        elif unicodedata.combining(c):
            continue
        elif unicodedata.category(c)[0] in "LNM":
            out.append(re.sub("['`]", "", anyascii(c)))
        else:
            out.append({"'": "'", "`": "'", "&": "&"}.get(anyascii(c), " "))
    return "".join(out)


def written(text: str, person: bool) -> list[str]:
    """The words before the table of words has a say."""
    text = latin(text)
    text = re.sub("(?<=[A-Za-z0-9])['`]+", "", text)
    text = re.sub(
        r"(?<![A-Za-z0-9])([A-Za-z0-9](?:\.[A-Za-z0-9](?![A-Za-z0-9]))+)", lambda m: m[1].replace(".", ""), text
    )
    words: list[str] = []
    for word in re.findall("[A-Za-z0-9]+|&", text):
        if word == "&":
            words.append("and")
            continue
        *pieces, last = re.findall(f".{{1,{MAX_LETTERS}}}", word)
        words += [piece.lower() for piece in pieces]
        stem = last.rstrip(ascii_uppercase)
        ending = last[len(stem) :].lower()
        if not person and len(ending) > 1 and stem[-1:].islower() and ending in WORDS.legal_endings:
            words += [stem.lower(), ending]
        else:
            words.append(last.lower())
    return re.findall(r"\S+", re.sub(r"(?<= [a-z]) (?=[a-z] )", "", f" {'  '.join(words)} ".replace("  ", " ")))


def words_of(text: str, person: bool = False) -> list[str]:
    """Folded by the table of words. Right for names of at most 24 words."""
    words = written(text, person)
    for keep_ignored in (False, True):
        out: list[str] = []
        at = 0
        while at < len(words):
            for n in range(LONGEST_PHRASE, 0, -1):
                compared = WORDS.phrases.get(tuple(words[at : at + n]))
                if compared and at + n <= len(words):
                    break
            else:
                compared, n = (words[at],), 1
            out += [word for word in compared if keep_ignored or word not in WORDS.ignored]
            at += n
        if out:
            return out
    return []


def gap(word: str, at: int) -> int:
    if at and word[at] == word[at - 1]:
        return 2
    return 3 if word[at] in VOWELS + "h" else 4


@cache
def thousandths(a: str, b: str) -> int:
    """How alike two words are: optimal string alignment with weights."""
    cost = {(0, 0): 0}
    for i, k in product(range(len(a) + 1), range(len(b) + 1)):
        ways = []
        if i:
            ways.append(cost[i - 1, k] + gap(a, i - 1))
        if k:
            ways.append(cost[i, k - 1] + gap(b, k - 1))
        if i and k:
            x, y = a[i - 1], b[k - 1]
            ways.append(cost[i - 1, k - 1] + (0 if x == y else 2 if (x, y) in ALIKE else 4))
        if i > 1 and k > 1 and a[i - 2 : i] == b[k - 2 : k][::-1] and a[i - 1] != a[i - 2]:
            ways.append(cost[i - 2, k - 2] + 3)
        if ways:
            cost[i, k] = min(ways)
    return max(0, 1000 - 250 * cost[len(a), len(b)] // max(len(a), len(b)))


def common_letters(a: str, b: str) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        new = [0]
        for k, y in enumerate(b):
            new.append(row[k] + 1 if x == y else max(row[k + 1], new[k]))
        row = new
    return row[-1]


def is_number(word: str, person: bool) -> bool:
    return word.isdigit() or (not person and WORDS.kinds.get(word) == "numeral")


def word_pair(x: str, y: str, person: bool) -> int:
    if 1 in (len(x), len(y)):
        return 700 if person and x[0] == y[0] and not x.isdigit() and not y.isdigit() else 0
    if len(x) + len(y) < 5 or is_number(x, person) or is_number(y, person):
        return 0
    if WORDS.kinds.get(x) == WORDS.kinds.get(y) == "legal_form":
        return 0
    found = thousandths(x, y)
    return found if found >= (700 if max(len(x), len(y)) > 3 else 650) else 0


def joined_pair(x: str, y: str, whole: str, person: bool) -> int:
    if any(is_number(word, person) for word in (x, y, whole)):
        return 0
    found = thousandths(x + y, whole)
    return found if found >= 850 else 0


def compare_words(a: list[str], b: list[str], person: bool) -> float:
    weights_a = [WORDS.weight(word)[0 if person else 1] for word in a]
    weights_b = [WORDS.weight(word)[0 if person else 1] for word in b]
    free_a, free_b = list(range(len(a))), list(range(len(b)))
    matched = unlike = 0
    for i in range(len(a)):
        k = next((k for k in free_b if a[i] == b[k]), None)
        if k is not None:
            free_a.remove(i)
            free_b.remove(k)
            matched += 1000 * weights_a[i]
    if not free_a and not free_b and a:
        return 1.0
    pairs = []
    for i, k in product(free_a, free_b):
        pairs.append((-word_pair(a[i], b[k], person), i, k, 0))
        if i + 1 in free_a:
            pairs.append((-joined_pair(a[i], a[i + 1], b[k], person), i, k, 1))
        if k + 1 in free_b:
            pairs.append((-joined_pair(b[k], b[k + 1], a[i], person), i, k, 2))
    for negative, i, k, joined in sorted(pair for pair in pairs if pair[0]):
        used_a = [i, i + 1] if joined == 1 else [i]
        used_b = [k, k + 1] if joined == 2 else [k]
        if set(used_a) <= set(free_a) and set(used_b) <= set(free_b):
            both = sum(weights_a[x] for x in used_a), sum(weights_b[y] for y in used_b)
            weight = max(both) if joined else min(both)
            matched += -negative * weight
            unlike += (1000 + negative) * weight
            free_a = [x for x in free_a if x not in used_a]
            free_b = [y for y in free_b if y not in used_b]
    if not matched:
        return 0.0
    left_a = 1000 * sum(weights_a[i] for i in free_a)
    left_b = 1000 * sum(weights_b[k] for k in free_b)
    unlike += min(left_a, left_b)
    extra = abs(left_a - left_b)
    unlike_cost, extra_cost = (200, 60) if person else (150, 70)
    score = 100 * matched**2 / (100 * matched**2 + unlike_cost * unlike * matched + extra_cost * 100_000 * extra)
    if not person:
        x, y = " ".join(sorted(a)), " ".join(sorted(b))
        score = (1.0 - 0.3) * score + 0.3 * (2.0 * common_letters(x, y) / (len(x) + len(y)))
    if any(is_number(a[i], person) for i in free_a) and any(is_number(b[k], person) for k in free_b):
        score -= 0.05
    return min(0.99, max(0.0, score))


def rounded(score: float) -> float:
    return int(score * 10000.0 + 0.5) / 10000.0


def compare(a: str, b: str, person: bool | None) -> float:
    if person is None:
        return max(compare(a, b, True), compare(a, b, False))
    return rounded(compare_words(words_of(a, person), words_of(b, person), person))
