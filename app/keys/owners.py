"""Which keys may be in one hand, as far as they tell themselves."""

from __future__ import annotations

from collections.abc import Iterable

from app.store.access import StoredKey


class Owners:
    """The hands that keys are in. keys: all of a tenant, those that ended too.

    # Design: a successor is its predecessor's owner's, and whoever made or rotated a key has seen its text. So two keys
    may be in one hand where one leads to the other over any number of such steps. Two that a third made need not be:
    that is how an administrator gives out keys. Keys of the command line lead to nobody.
    """

    __slots__ = ("_givers", "_replaced")

    def __init__(self, keys: Iterable[StoredKey]) -> None:
        self._replaced: dict[str, str] = {}
        kept = list(keys)
        for key in kept:
            if key.replaces is not None:
                self._replaced[key.id] = key.replaces
        self._givers: dict[str, set[str]] = {}
        for key in kept:
            self._givers.setdefault(self._first(key.id), set()).add(self._first(key.created_by))

    def may_be_one(self, id: str, other: str) -> bool:
        """Whether both keys may be the same person's."""
        one, two = self._first(id), self._first(other)
        return one in self._upwards(two) or two in self._upwards(one)

    def _first(self, id: str) -> str:
        """The key that stands first in the line of those that replaced each other."""
        seen = {id}
        while (before := self._replaced.get(id)) is not None and before not in seen:
            seen.add(id := before)
        return id

    def _upwards(self, first: str) -> set[str]:
        """Itself, and all that it comes from."""
        found, ahead = {first}, [first]
        while ahead:
            for giver in self._givers.get(ahead.pop(), ()):
                if giver not in found:
                    found.add(giver)
                    ahead.append(giver)
        return found
