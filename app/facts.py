"""The facts that a source outside of the service can tell about a business, named as the profile names them.

They are read by models as `evidence.external.*`, and the settings of providers say where in an answer each stands.
"""

from __future__ import annotations

import datetime as dt

from msgspec import Struct

from app.wire import AuditOpinion, BusinessStatus, Count, Days, LicenceStatus, MediaSeverity


class ExternalFacts(Struct, frozen=True, array_like=True, gc=False):
    """What external sources told about one business. None is not known: not told, not asked, or the source failed."""

    business_status: BusinessStatus | None = None
    incorporated_on: dt.date | None = None
    employees: Count | None = None
    licence_status: LicenceStatus | None = None
    filing_overdue_days: Days | None = None
    audit_opinion: AuditOpinion | None = None
    adverse_media_count: Count | None = None
    adverse_media_severity: MediaSeverity | None = None
    litigation_count: Count | None = None
    insolvency_events: Count | None = None
    regulatory_actions: Count | None = None
    director_turnover_12m: Count | None = None
    website_verified: bool | None = None
    is_shell_bank: bool | None = None


NO_FACTS = ExternalFacts()
