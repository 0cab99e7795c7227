"""The formats known, and telling which of them files are."""

from __future__ import annotations

from collections.abc import Sequence

from app.watchlists.formats import eu_csv, eu_xml, ftm, ofac, opensanctions, un
from app.watchlists.formats.base import Format
from app.watchlists.refusal import ListRefused
from app.watchlists.text import Head

FORMATS = {
    made.name: made for made in (ofac.FORMAT, un.FORMAT, eu_xml.FORMAT, eu_csv.FORMAT, opensanctions.FORMAT, ftm.FORMAT)
}


def chosen(name: str | None, heads: Sequence[Head]) -> Format:
    """The format of a name, or with None the one that the files' content shows. Raises ListRefused."""
    where = ", ".join(head.path.name for head in heads)
    if name is not None and name not in FORMATS:
        raise ListRefused(f'"{name}" is no format known here; those are {", ".join(FORMATS)}', where)
    objections = {}
    for made in FORMATS.values() if name is None else [FORMATS[name]]:
        objection = made.objection(heads)
        if not objection:
            return made
        objections[made.name] = objection
    if name is not None:
        raise ListRefused(f"is not {FORMATS[name].title} ({name}): {objections[name]}", where)
    tried = "; ".join(f"{tried} {objection}" for tried, objection in objections.items())
    raise ListRefused(f"is not a list of any format known here: {tried}", where)
