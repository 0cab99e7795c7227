"""Headers that answers carry whatever they say: what a browser may do with them, and who may keep them."""

from __future__ import annotations

Fixed = tuple[tuple[bytes, bytes], ...]

NOTHING_LOADED = b"default-src 'none'; frame-ancestors 'none'"
"""The Content-Security-Policy of what is no page: should it be shown as one, it loads and runs nothing."""
TLS_ONLY = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
# Cross-Origin-Resource-Policy binds only what a page asks for without CORS (`no-cors` in the Fetch standard). Pages of
# the origins that the settings list ask with it, and are not kept out.
_ALWAYS: Fixed = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def protective_headers(tls: bool, policy: bytes = NOTHING_LOADED) -> Fixed:
    """What protects every answer. tls: callers come over TLS.  policy: the Content-Security-Policy, b"" for none."""
    told = ((b"content-security-policy", policy),) if policy else ()
    return (*_ALWAYS, *told, *((TLS_ONLY,) if tls else ()))


def fixed_headers(cache_control: bytes, tls: bool, policy: bytes = NOTHING_LOADED) -> Fixed:
    """The same, and who may keep the answer: the value of Cache-Control."""
    return ((b"cache-control", cache_control), *protective_headers(tls, policy))
