"""The remarks of OFAC's SDN list: free text in pieces apart by semicolons, of which those in a settled form are read.

Labels as they stand in the list of July 2021. A piece of any other form is left alone.
"""

from __future__ import annotations

import re

from app.watchlists.countries import table
from app.watchlists.party import Party
from core.entities import IdentifierKind

LONGEST_NUMBER = 64

_LABELS: dict[IdentifierKind, tuple[str, ...]] = {
    "passport": ("Passport", "Diplomatic Passport", "Stateless Person Passport", "British National Overseas Passport",
                 "Passport Booklet", "Travel Document Number"),
    "national_id": ("National ID No.", "Cedula No.", "Identification Number", "D.N.I.", "C.U.R.P.", "C.U.R.P. #",
                    "Personal ID Card", "National Foreign ID Number", "Citizen's Card Number", "SSN", "N.I.E.",
                    "Turkish Identification Number", "Kenyan ID No.", "Bosnian Personal ID No.", "UAE Identification",
                    "Moroccan Personal ID No.", "Residency Number", "LE Number", "Tazkira National ID Card", "C.U.I.",
                    "Numero de Identidad", "CNP (Personal Numerical Code)", "Refugee ID Card",
                    "Stateless Person ID Card"),
    "tax": ("Tax ID No.", "NIT #", "R.F.C.", "R.F.C. #", "RFC", "RUC #", "RIF #", "C.U.I.T.", "US FEIN", "C.I.F.",
            "RTN", "Italian Fiscal Code", "Italian Fiscal Code:", "Fiscal Code"),
    "vat": ("V.A.T. Number",),
    "registration": ("Registration Number", "Registration ID", "Company Number", "UK Company Number", "C.R. No.",
                     "Commercial Registry Number", "Public Registration Number", "Business Registration Number",
                     "Business Registration Document #", "Certificate of Incorporation Number", "Enterprise Number",
                     "Folio Mercantil No.", "Matricula Mercantil No", "Government Gazette Number", "Business Number",
                     "Chamber of Commerce Number", "Istanbul Chamber of Comm. No.", "Romanian C.R.", "File Number",
                     "Central Registration System Number", "Registered Charity No.", "Trade License No.",
                     "Legal Entity Number", "Branch Unit Number", "Unified Social Credit Code (USCC)",
                     "United Social Credit Code Certificate (USCCC)"),
    "imo": ("Vessel Registration Identification IMO", "Identification Number IMO", "Company Number IMO",
            "International Maritime Organization No."),
    "bic": ("SWIFT/BIC",),
    "other": ("MMSI", "D-U-N-S Number", "Driver's License No.", "Birth Certificate Number", "License", "BIK (RU)",
              "Electoral Registry No.", "Credencial electoral", "C.U.I.P.", "I.F.E.", "MSB Registration Number",
              "Aircraft Tail Number", "Previous Aircraft Tail Number", "Aircraft Manufacturer's Serial Number (MSN)",
              "Cartilla de Servicio Militar Nacional", "Dubai Chamber of Commerce Membership No."),
}  # fmt: skip
_KINDS = {label: kind for kind, labels in _LABELS.items() for label in labels}
_LABEL = "|".join(re.escape(label) for label in sorted(_KINDS, key=len, reverse=True))
# The number, then the country in parentheses and the dates of issue and expiry, each where it is given.
_NUMBER = re.compile(
    rf"(?:alt\. )?({_LABEL}) (?:No\.:? |# ?)?(\S.*?)((?: \([^()]*\))*)(?:,? (?:issued|expire[sd]|valid)\b.*)?"
)
_ALIAS = re.compile(r"[afn]\.k\.a\. '(.*)'")
_BIRTH = re.compile(r"(?:alt\. )?DOB (.+)")
_COUNTRY = re.compile(r"(?:alt\. )?(?:nationality|citizen|(?:Former )?Vessel Flag) (.+)")
_LEI = re.compile(r"[A-Z0-9]{18}[0-9]{2}")


def read(remarks: str, party: Party, turned: bool) -> None:
    """Put into a party what its remarks tell: weak aliases, dates of birth, countries, numbers.

    turned: aliases that hold a comma are "LAST, First".
    """
    for piece in remarks.split(";"):
        piece = piece.strip().removesuffix(".")
        alias = _ALIAS.fullmatch(piece)
        if alias:
            last, comma, first = alias[1].partition(", ")
            party.weak_names.append(f"{first} {last}" if turned and comma else alias[1])
            continue
        birth = _BIRTH.fullmatch(piece)
        if birth:
            party.birth_dates.append(birth[1])
            continue
        country = _COUNTRY.fullmatch(piece)
        if country:
            party.countries.append(country[1])
            continue
        number = _NUMBER.fullmatch(piece)
        if number and len(number[2]) <= LONGEST_NUMBER:
            _add_number(party, number[1], number[2], number[3])


def _add_number(party: Party, label: str, number: str, parentheses: str) -> None:
    kind = _KINDS[label]
    if label == "Legal Entity Number" and _LEI.fullmatch(number):
        kind = "lei"
    # Of "(Delaware) (United States)" and "(Medellin)" the one names a country and the other none.
    groups = re.findall(r"\(([^()]*)\)", parentheses)
    known = [group for group in groups if table().code(group)]
    party.identifiers.append((kind, number.strip("() "), known[-1] if known else ""))
