"""Where lists come from: the official addresses, which a configuration can replace, and what makes a list plausible.

minimum: well under what each list held when it was looked at (OFAC 8,976 in July 2021, about twice that since;
UN 1,003 in February 2026; EU 6,234 in August 2026), well over what a damaged file would hold.
"""

from __future__ import annotations

from msgspec import Struct

from core.entities import ListKind

_OFAC = "https://sanctionslistservice.ofac.treas.gov/api/PublicationPreview/exports"
_OPENSANCTIONS = "https://data.opensanctions.org/datasets/latest"


class Source(Struct, frozen=True):
    """One list and where it is.

    urls: its files, all needed.  format: a name of the registry of formats.  kind: of every entity, None = as the list
    says.  minimum: fewer entities are not plausible.
    """

    name: str
    title: str
    urls: tuple[str, ...]
    format: str
    kind: ListKind | None = None
    minimum: int = 1


SOURCES = {
    source.name: source
    for source in (
        Source(
            "ofac-sdn",
            "OFAC Specially Designated Nationals and Blocked Persons (US Treasury)",
            (f"{_OFAC}/SDN.CSV", f"{_OFAC}/ALT.CSV", f"{_OFAC}/ADD.CSV", f"{_OFAC}/SDN_COMMENTS.CSV"),
            "ofac-csv",
            "sanction",
            5_000,
        ),
        Source(
            "un-consolidated",
            "United Nations Security Council Consolidated List",
            ("https://scsanctions.un.org/resources/xml/en/consolidated.xml",),
            "un-xml",
            "sanction",
            500,
        ),
        Source(
            "eu-consolidated",
            "EU consolidated list of financial sanctions (European Commission)",
            (
                "https://webgate.ec.europa.eu/fsd/fsf/public/files/xmlFullSanctionsList_1_1/content"
                "?token=dG9rZW4tMjAxNw",  # of the public link, the same for everyone
            ),
            "eu-xml",
            "sanction",
            2_000,
        ),
        Source(
            "opensanctions-default",
            "OpenSanctions default collection (a licence is needed for commercial use)",
            (f"{_OPENSANCTIONS}/default/targets.simple.csv",),
            "opensanctions-csv",
            None,
            100_000,
        ),
        Source(
            "opensanctions-sanctions",
            "OpenSanctions consolidated sanctions (a licence is needed for commercial use)",
            (f"{_OPENSANCTIONS}/sanctions/targets.simple.csv",),
            "opensanctions-csv",
            None,
            20_000,
        ),
        Source(
            "opensanctions-peps",
            "OpenSanctions politically exposed persons (a licence is needed for commercial use)",
            (f"{_OPENSANCTIONS}/peps/targets.simple.csv",),
            "opensanctions-csv",
            "pep",
            50_000,
        ),
    )
}
"""The lists known by name. The first three are those that the shipped model requires."""
