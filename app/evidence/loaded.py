"""The lists in force, ready to be searched: one immutable whole, swapped for another when a list changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

import msgspec

from app import ids, wire
from app.evidence.base import Findings, Gathered, ScreeningFacts, members
from app.store.lists import ListVersion
from core.matches import Match
from core.names import NameIndex

DEMO = "demo"
"""The packaged list of invented names, which is never too old and never counts towards `clear`."""
REMEMBERED = 50_000
"""Subjects whose matches are kept, and as many from before; each a few hundred bytes."""

Matches = tuple[tuple["LoadedList", Match], ...]
Asked = tuple[object, ...]
"""All that decides what is found for somebody."""


class LoadedList:
    """A list in force. version: its date and the start of its content's SHA-256, as answers show it."""

    __slots__ = ("index", "known", "loaded_ms", "version")

    def __init__(self, known: ListVersion, index: NameIndex, loaded_ms: int) -> None:
        self.known = known
        self.index = index
        self.loaded_ms = loaded_ms
        self.version = version_text(known)

    @property
    def name(self) -> str:
        return self.known.name

    def is_stale(self, now_ms: int, max_age_ms: int) -> bool:
        """Whether nobody looked for a newer version for too long."""
        return self.name != DEMO and now_ms - self.known.checked_ms > max_age_ms


class Loaded:
    """Lists, and what an assessment that uses them is told of them.

    lists: by name.  required: names of those without which nothing is clear.  threshold: of a potential match.
    `complete`: all required lists are there, and fresh.  `missing`: those that are not there.  `rows`: the
    wire.Evidence of the lists as members of a JSON list, and `digest` (16 bytes) what the store keeps them under.
    `clean`: what was gathered about a profile in which nobody is found, by whether it names owners.
    """

    __slots__ = (
        "_matches",
        "clean",
        "complete",
        "digest",
        "lists",
        "missing",
        "required",
        "rows",
        "stale",
        "threshold",
    )

    def __init__(
        self,
        lists: Iterable[LoadedList],
        required: Sequence[str],
        threshold: float,
        *,
        now_ms: int,
        max_age_ms: int,
        before: Loaded | None = None,
    ) -> None:
        self.lists = tuple(sorted(lists, key=lambda one: one.name))
        self.required = tuple(required)
        self.threshold = threshold
        self.stale = tuple(one.name for one in self.lists if one.is_stale(now_ms, max_age_ms))
        there = {one.name for one in self.lists}
        self.missing = tuple(name for name in required if name not in there)
        self.complete = bool(required) and not self.missing and not any(name in self.stale for name in required)
        self.rows = members(self._evidence())
        self.digest = sha256(self.rows).digest()[:16]
        self.clean = tuple([self._clean(share) for share in (None, 0.0)])
        self._matches = _Memory()
        if before is not None and before.threshold == threshold and before._indexes() == self._indexes():
            self._matches = before._matches

    def _clean(self, share_pct: float | None) -> Gathered:
        status: wire.ScreeningStatus = "clear" if self.complete else "not_screened"
        facts = ScreeningFacts(status, False, share_pct, False, False)
        screening = msgspec.json.encode(wire.Screening(status))
        return Gathered(Findings(facts), screening, b"", False, self.digest, self.rows)

    def recall(self, asked: Asked) -> Matches | None:
        """What was found for a subject before."""
        return self._matches.recall(asked)

    def remember(self, asked: Asked, matches: Matches) -> None:
        """Keep what was found."""
        self._matches.remember(asked, matches)

    def named(self, name: str) -> LoadedList | None:
        """The list of that name."""
        return next((one for one in self.lists if one.name == name), None)

    def _indexes(self) -> list[NameIndex]:
        return [one.index for one in self.lists]

    def _evidence(self) -> list[wire.Evidence]:
        overall: wire.EvidenceStatus = "ok"
        if self.missing or not self.required:
            overall = "not_screened"
        elif any(name in self.stale for name in self.required):
            overall = "stale"
        checked = [one.known.checked_ms for one in self.lists if one.name in self.required]
        whole = sha256(b"".join([one.known.content_sha256 for one in self.lists])).hexdigest()[:12]
        return [
            wire.Evidence(
                "watchlist",
                overall,
                whole if self.lists else None,
                ids.instant(min(checked)) if checked else None,
            ),
            *[
                wire.Evidence(
                    f"watchlist:{one.name}",
                    "stale" if one.name in self.stale else "ok",
                    one.version,
                    ids.instant(one.known.checked_ms),
                )
                for one in self.lists
            ],
            *[wire.Evidence(f"watchlist:{name}", "not_configured") for name in self.missing],
        ]


class _Memory:
    """What was found of late: a full generation becomes the old one, and what is asked for again moves on."""

    __slots__ = ("_new", "_old")

    def __init__(self) -> None:
        self._new: dict[Asked, Matches] = {}
        self._old: dict[Asked, Matches] = {}

    def recall(self, asked: Asked) -> Matches | None:
        found = self._new.get(asked)
        if found is None and (found := self._old.get(asked)) is not None:
            self.remember(asked, found)
        return found

    def remember(self, asked: Asked, matches: Matches) -> None:
        if len(self._new) >= REMEMBERED:
            self._old, self._new = self._new, {}
        self._new[asked] = matches


def version_text(known: ListVersion) -> str:
    """The date that a list says of itself, or else on which it came, and the start of its content's SHA-256."""
    return f"{known.published or ids.instant(known.added_ms)[:10]}-{known.content_sha256.hex()[:12]}"
