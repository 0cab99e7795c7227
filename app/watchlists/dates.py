"""Dates of birth as lists write them, to `1970`, `1970-03` or `1970-03-02`: no more exact than the list is."""

from __future__ import annotations

import datetime as dt
import re

LONGEST_RANGE_YEARS = 30
FIRST_YEAR, LAST_YEAR = 1600, 2200

_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), start=1
    )
}
_YEAR = re.compile(r"\d{4}")
_APPROXIMATE = re.compile(r"(?:circa|approximately|approx\.?|c\.|about)\s+", re.IGNORECASE)
_ISO = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2})(?:T.*)?)?)?")
_WORDS = re.compile(r"(?:(\d{1,2})\s+)?([A-Za-z]{3})[A-Za-z]*\.?\s+(\d{4})")
_SLASHES = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})")
_RANGE = re.compile(r"(.+?)\s+(?:to|and)\s+(.+)|(\d{4})\s*-\s*(\d{4})")


def birth_dates(text: str) -> list[str]:
    """The dates that one mention stands for; none where it cannot be read.

    An approximate date keeps its year only. A range is each of its years, up to LONGEST_RANGE_YEARS of them. Days and
    months apart by slashes come in the order that the EU writes them: day first.
    """
    text = text.strip()
    exact = _APPROXIMATE.sub("", text, count=1)
    if exact != text:
        return [date[:4] for date in birth_dates(exact)]
    span = _RANGE.fullmatch(text)
    if span:
        first, last = (one_date(span[1]), one_date(span[2])) if span[1] else (span[3], span[4])
        return years(first[:4], last[:4]) if first and last else []
    date = one_date(text)
    return [date] if date else []


def years(first: str, last: str) -> list[str]:
    """Each year of a range given by two years; none where the range is not one or too long to tell anything."""
    if not (_YEAR.fullmatch(first) and _YEAR.fullmatch(last)):
        return []
    count = int(last) - int(first) + 1
    if not 1 <= count <= LONGEST_RANGE_YEARS or not FIRST_YEAR <= int(first) <= int(last) <= LAST_YEAR:
        return []
    return [str(int(first) + i) for i in range(count)]


def one_date(text: str) -> str:
    """A single date, or `` where it cannot be read or is none of the calendar."""
    text = text.strip()
    iso = _ISO.fullmatch(text)
    if iso:
        return written(iso[1], iso[2] or "", iso[3] or "")
    words = _WORDS.fullmatch(text)
    if words:
        month = _MONTHS.get(words[2].lower())
        return written(words[3], str(month), words[1] or "") if month else ""
    slashes = _SLASHES.fullmatch(text)
    return written(slashes[3], slashes[2], slashes[1]) if slashes else ""


def written(year: str, month: str = "", day: str = "") -> str:
    """A date from its parts, `` for those that are not given; `` where they make no date."""
    try:
        whole = dt.date(int(year), int(month or 1), int(day or 1))
    except ValueError:
        return ""
    if not FIRST_YEAR <= whole.year <= LAST_YEAR:
        return ""
    return whole.isoformat()[: 10 if month and day else 7 if month else 4]
