"""Where the newest checkpoint is kept outside of the database, so that one cut off together with entries is missed."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from app.audit.lines import line
from app.settings import Settings
from app.store.trail import Checkpoint
from app.telemetry.log import event

log = logging.getLogger(__name__)

FILE = "audit_anchor"
"""The name of the anchor in the data folder of the embedded database."""


class AnchorUnreadable(Exception):
    """A file of anchors cannot be read as one; the text says which and why."""


class AnchorTorn(Exception):
    """A checkpoint does not follow the one that was kept; the text says which."""


class Anchor(NamedTuple):
    """A checkpoint that was seen. hash: 32 bytes."""

    tenant_id: str
    number: int
    hash: bytes


class Kept(Struct, frozen=True, omit_defaults=True):
    """An anchor in a file, under its tenant. hash: hexadecimal.  torn: what came after it was another trail's."""

    number: int
    hash: str
    torn: bool = False


_decode = msgspec.json.Decoder(dict[str, Kept]).decode


def anchor_of(settings: Settings) -> FileAnchor | None:
    """The file that checkpoints are kept in: the one that the settings name, or one beside the embedded database; None
    with PostgreSQL where none is named, and the log has to do."""
    if settings.audit.anchor_file is not None:
        return FileAnchor(settings.audit.anchor_file)
    return None if settings.database.is_postgres else FileAnchor(settings.database.data_dir / FILE)


def log_anchor(checkpoint: Checkpoint) -> None:
    """Keep it in the log, one line."""
    told = {"tenant": checkpoint.tenant_id, "number": checkpoint.number, "hash": checkpoint.hash.hex()}
    log.info("audit checkpoint %s", line(told), extra=event("audit_checkpoint", **told))


def as_kept(checkpoint: Checkpoint) -> Kept:
    """The checkpoint as a file of anchors holds it."""
    return Kept(checkpoint.number, checkpoint.hash.hex())


def written(kept: Mapping[str, Kept]) -> bytes:
    """The text of a file of anchors: a JSON object with tenants as names."""
    return msgspec.json.format(msgspec.json.encode(kept, order="sorted")) + b"\n"


def read(text: bytes, name: str) -> list[Anchor]:
    """The anchors of a file's text. Raises AnchorUnreadable."""
    return [Anchor(tenant_id, kept.number, bytes.fromhex(kept.hash)) for tenant_id, kept in _read(text, name).items()]


def _read(text: bytes, name: str) -> dict[str, Kept]:
    try:
        found = _decode(text)
        for kept in found.values():
            if len(bytes.fromhex(kept.hash)) != 32 or kept.number < 1:
                raise ValueError(f"{kept.number} with {kept.hash} is no checkpoint's number and hash")
    except ValueError as error:
        raise AnchorUnreadable(
            f"{name} does not hold checkpoints as `kyb audit checkpoint` writes them: {error}"
        ) from None
    return found


class FileAnchor:
    """Keeps each tenant's newest checkpoint in a file that its owner alone can read, replaced whole.

    Called with a checkpoint. Several processes of one machine may share the file; a checkpoint older than the one there
    changes nothing. One that does not follow it marks it as torn, so that it stays for `kyb audit verify` to miss.
    Raises OSError, AnchorUnreadable, and AnchorTorn the first time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def make_folder(self) -> None:
        """Before the first call. One that vanishes later is not made again: it would stand where it is put back."""
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, checkpoint: Checkpoint) -> None:
        with self._locked():
            kept = self._kept()
            known = kept.get(checkpoint.tenant_id)
            if known is not None and (known.torn or checkpoint.number < known.number):
                return
            torn = known is not None and not _follows(checkpoint, known)
            if known is not None and torn:
                kept[checkpoint.tenant_id] = Kept(known.number, known.hash, torn=True)
            else:
                kept[checkpoint.tenant_id] = as_kept(checkpoint)
            self._replace(written(kept))
        if torn:
            told = {"tenant": checkpoint.tenant_id, "number": checkpoint.number}
            raise AnchorTorn(
                f"{line(told)} does not follow the checkpoint in {self._path}: the audit trail was cut or rewritten, "
                "or a backup restored. Run `kyb audit verify`; afterwards move that file away"
            )

    def anchors(self) -> list[Anchor]:
        """What is kept; nothing where there is no file. Raises OSError, AnchorUnreadable."""
        return [Anchor(tenant_id, kept.number, bytes.fromhex(kept.hash)) for tenant_id, kept in self._kept().items()]

    def _kept(self) -> dict[str, Kept]:
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        return _read(text, str(self._path))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # The folder is locked, for the file is another one after each change.
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
            os.fsync(folder)
        finally:
            os.close(folder)

    def _replace(self, text: bytes) -> None:
        # mkstemp gives mode 0600.
        descriptor, draft = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        try:
            with os.fdopen(descriptor, "wb") as handle:
                handle.write(text)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(draft, self._path)
        except BaseException:
            os.unlink(draft)
            raise


def _follows(checkpoint: Checkpoint, known: Kept) -> bool:
    """Whether it can be of the same trail; those between them may have been missed by a process that was killed."""
    if checkpoint.number == known.number:
        return checkpoint.hash.hex() == known.hash
    return checkpoint.number > known.number + 1 or checkpoint.previous.hex() == known.hash
