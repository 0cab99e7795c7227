"""Requests written byte by byte, as no client library would send them."""

from __future__ import annotations

from service import KEY


def head(path: str, *headers: str) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: kyb", f"X-API-Key: {KEY}", "Content-Type: application/json", *headers)
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


def malformed(*lines: str, body: str = "") -> bytes:
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")


def posted(*headers: str, body: str = "{}") -> bytes:
    known = ("Host: a", f"X-API-Key: {KEY}", "Content-Type: application/json")
    return malformed("POST /v1/assessments HTTP/1.1", *known, *headers, body=body)
