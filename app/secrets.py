"""The secrets that every pod shares: given in the settings, or made in the data folder of the embedded database."""

from __future__ import annotations

import os
from pathlib import Path
from secrets import token_hex

from msgspec import Struct

from app.settings import Settings

ADMIN_KEY = "admin.key"


class SecretsMissing(Exception):
    """A secret is not there and may not be made here; the text says what to do."""


class Secrets(Struct, frozen=True):
    """key_hash: what keys are hashed under.  audit_signing: what checkpoints of the audit trail are signed with."""

    key_hash: bytes
    audit_signing: bytes

    def __repr__(self) -> str:
        return "Secrets(***)"


def secrets_of(settings: Settings) -> Secrets:
    """The secrets in force. Raises SecretsMissing, and OSError where the data folder does not take them."""
    given = {
        "KEY_HASH_SECRET": settings.auth.key_hash_secret,
        "AUDIT_SIGNING_KEY": settings.audit.signing_key,
    }
    missing = [name for name, value in given.items() if value is None]
    if missing and settings.database.is_postgres:
        raise SecretsMissing(
            f"with PostgreSQL every pod must be given the same {' and '.join(missing)}: "
            "set each to 32 characters or more, such as the output of `openssl rand -hex 32`, and keep it"
        )
    folder = settings.database.data_dir
    texts = [value or _kept(folder / name.lower()) for name, value in given.items()]
    return Secrets(*[text.encode("ascii") for text in texts])


def write_once(file: Path, text: str) -> str:
    """Keep a text in a file that its owner alone can read, unless there is one: the text that stands there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as handle:
            handle.write(text + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        # A link is made whole or not at all, and never over a file that another process made first.
        try:
            os.link(draft, file)
        except FileExistsError:
            return file.read_text("ascii").strip()
    finally:
        draft.unlink()
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return text


def _kept(file: Path) -> str:
    try:
        return file.read_text("ascii").strip()
    except FileNotFoundError:
        return write_once(file, token_hex(32))
