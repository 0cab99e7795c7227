"""Assessments as PostgreSQL tells them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from app.store.base import Row

_OVERRIDE_ID = Row.__struct_fields__.index("override_id") - 2
"""Its place in a record after tenant and id."""


def row_of(record: Iterable[Any]) -> Row:
    """The row of a record of `statements.COLUMNS`."""
    tenant_id, id, *others = record
    if (override_id := others[_OVERRIDE_ID]) is not None:
        others[_OVERRIDE_ID] = override_id.bytes
    return Row(tenant_id, id.bytes, *others)
