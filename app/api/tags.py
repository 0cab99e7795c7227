"""Entity tags: whether a caller's copy still holds."""

from __future__ import annotations


def names(header: bytes, etag: bytes) -> bool:
    """Whether an If-None-Match names this tag (RFC 9110: compared weakly)."""
    opaque = etag.removeprefix(b"W/")
    return any(tag.strip().removeprefix(b"W/") in (opaque, b"*") for tag in header.split(b","))
