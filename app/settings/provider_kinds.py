"""Kinds of setting that only providers have: their addresses, and what stands in requests and answers."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from urllib.parse import unquote

from app.settings.kinds import Kind, Malformed, choice, duration, is_loopback, quoted, size, whole
from app.settings.providers import Hole, Template
from app.settings.templates import template

MAX_BYTES = 8 << 20

_URL = re.compile(
    r"(https?)://([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?(/.*)?", re.IGNORECASE
)
_PATH_TEXT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/%-]*")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)*")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_FRACTION = re.compile(r"0(?:\.[0-9]{1,6})?|1(?:\.0{1,6})?")
# Who answers, how the message is framed and how it is packed is not for the settings to say.
_OWN_HEADERS = frozenset(
    ("host", "content-length", "content-type", "transfer-encoding", "connection", "keep-alive", "upgrade", "te",
     "trailer", "expect", "cookie", "accept-encoding", "proxy-authorization", "authorization")
)  # fmt: skip


def split_url(text: str) -> tuple[str, str]:
    """Scheme and host of an address, in lower case, and the path behind them. Raises Malformed, repeating nothing."""
    match = _URL.fullmatch(text)
    if match is None or (match[3] and not 1 <= int(match[3]) <= 65535):
        raise Malformed("the value is not the address of a web service")
    scheme, host, port = match[1].lower(), match[2].lower(), match[3]
    if scheme == "http" and not is_loopback(host.strip("[]")):
        raise Malformed("without TLS only this machine itself is asked")
    return f"{scheme}://{host}{f':{int(port)}' if port else ''}", match[4] or ""


def url_path(text: str) -> Template:
    """The path of an address as a template. Raises Malformed."""
    parts = template(text or "/")
    for part in parts:
        if isinstance(part, Hole):
            if part.optional:
                raise Malformed(f"{quoted(part.path + '?')} stands in the path, and nothing may lack there")
        elif not _PATH_TEXT.fullmatch(part) or _ESCAPE.search(part):
            raise Malformed("the path holds a character that must be percent-encoded (a query goes under `query`)")
    literal = "".join("{}" if isinstance(part, Hole) else part for part in parts)
    if has_dot_segment(literal):
        raise Malformed("the path holds a segment that is . or ..")
    return parts


def has_dot_segment(path: str) -> bool:
    """Whether a server could take a segment of the path for a step to a place beside it."""
    return any(unquote(segment) in (".", "..") for segment in path.split("/"))


def _url(text: str) -> str:
    _, path = split_url(text)
    url_path(path)
    return text


def _base_url(text: str) -> str:
    origin, path = split_url(text)
    if any(isinstance(part, Hole) for part in url_path(path)):
        raise Malformed("nothing of the profile goes into this address")
    return origin + path.rstrip("/")


def _matching(pattern: re.Pattern[str], problem: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not pattern.fullmatch(text):
            raise Malformed(f"{quoted(text)} {problem}")
        return text

    return parse


def _variable(text: str) -> str:
    # Where a name belongs, the secret itself may stand.
    if not _VARIABLE.fullmatch(text):
        raise Malformed("it is no name of an environment variable")
    return text


def _own_header(text: str) -> str:
    if not _HEADER.fullmatch(text):
        raise Malformed(f"{quoted(text)} is no name of a header")
    if text.lower() in _OWN_HEADERS:
        raise Malformed(f"{quoted(text)} is written by the service itself")
    return text


def header_value(text: str) -> str:
    """What may stand in a header. Raises Malformed, repeating nothing."""
    if not text or not text.isascii() or not text.isprintable() or text != text.strip():
        raise Malformed("it must be printable ASCII characters without blanks around them")
    return text


def _ca_file(text: str) -> str:
    try:
        ssl.create_default_context(cafile=text)
    except (OSError, ValueError):
        raise Malformed(f"{quoted(text, 4096)} is no readable file of certificates") from None
    return text


def _fraction(text: str) -> float:
    if not _FRACTION.fullmatch(text):
        raise Malformed(f"{quoted(text)} is not a number from 0 to 1")
    return float(text)


_ADDRESS = "https://host/path (http on loopback only), without user, query or #"

KIND = choice("http_json", "yente")
URL = Kind(_url, str, f"{_ADDRESS}; fields of the profile may stand in the path, such as /companies/{{business.lei}}")
BASE_URL = Kind(_base_url, str, f"{_ADDRESS}; what goes before /match")
METHOD = choice("get", "post")
TIMEOUT = duration("10ms", "60s")
TTL = duration("1s", "720h")
CONCURRENCY = whole(1, 1000)
BYTES = size("1KiB", "8MiB")
CA_FILE = Kind(_ca_file, str, "the path of a PEM file with the certificates that are trusted")
AUTH_HEADER = Kind(
    lambda text: text if text.lower() == "authorization" else _own_header(text), str, "a name such as X-Api-Key"
)
HEADER = Kind(_own_header, str, "a header's name such as X-Api-Key, not one that the service writes itself")
HEADER_VALUE = Kind(header_value, lambda value: "***", "printable ASCII characters")
VARIABLE = Kind(_variable, str, "a name such as REGISTRY_KEY, under which the secret is in the environment")
USER = Kind(header_value, str, "printable ASCII characters")
POINTER = Kind(_matching(_POINTER, "is no JSON pointer"), str, "a JSON pointer (RFC 6901) such as /company/status")
ABSENT = whole(400, 499)
DATASET = Kind(_matching(_WORD, "is no name of a dataset"), str, "a name such as default")
ALGORITHM = Kind(_matching(_WORD, "is no name of an algorithm"), str, "a name such as logic-v1")
THRESHOLD = Kind(_fraction, lambda value: f"{value:g}", "a number from 0 to 1")
LIMIT = whole(1, 100)
BATCH = whole(1, 500)
