"""Checkpoints are kept outside of the database: in the log, and in a file that no other trail overwrites."""

from __future__ import annotations

import logging
import os
import stat
import threading
from pathlib import Path

import pytest

from app.audit import anchors
from app.audit.anchors import Anchor, AnchorTorn, AnchorUnreadable, FileAnchor, log_anchor
from app.store.trail import Checkpoint


def made(number: int, *, tenant_id: str = "acme", trail: str = "first") -> Checkpoint:
    """A checkpoint of one of two trails that differ from their beginning."""

    def digest(of: int) -> bytes:
        return f"{trail} {of}".encode().ljust(32)

    return Checkpoint(tenant_id, number, 0, number, (), digest(number - 1), digest(number), bytes(32))


def test_a_checkpoint_is_logged_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log_anchor(made(3, tenant_id="a\x85\nb\u2028\x7f"))
    [record] = caplog.records
    assert record.getMessage() == (
        'audit checkpoint {"tenant":"a\\u0085\\nb\\u2028\\u007f","number":3,"hash":"' + made(3).hash.hex() + '"}'
    )


def test_the_file_keeps_the_newest_checkpoint_of_each_tenant_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / anchors.FILE
    anchor = FileAnchor(path)
    assert anchor.anchors() == []
    anchor.make_folder()
    for checkpoint in (made(1), made(2), made(1), made(7, tenant_id=""), made(2)):
        anchor(checkpoint)
    assert anchor.anchors() == [Anchor("", 7, made(7).hash), Anchor("acme", 2, made(2).hash)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == [anchors.FILE]
    assert anchors.read(path.read_bytes(), "it") == anchor.anchors()


def test_a_folder_that_vanishes_is_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "data" / anchors.FILE
    anchor = FileAnchor(path)
    anchor.make_folder()
    anchor(made(1))
    path.parent.rename(tmp_path / "kept")
    with pytest.raises(FileNotFoundError):
        anchor(made(2))
    (tmp_path / "kept").rename(path.parent)
    anchor(made(3))
    assert anchor.anchors() == [Anchor("acme", 3, made(3).hash)]


def test_who_writes_the_file_at_the_same_time_waits_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / anchors.FILE
    reached, released = threading.Event(), threading.Event()

    class Slow(FileAnchor):
        def _replace(self, text: bytes) -> None:
            reached.set()
            released.wait()
            super()._replace(text)

    slow = threading.Thread(target=Slow(path), args=(made(1, tenant_id="a"),))
    slow.start()
    reached.wait()
    other = threading.Thread(target=FileAnchor(path), args=(made(1, tenant_id="b"),))
    other.start()
    # Without a lock it would be done by now.
    other.join(0.2)
    released.set()
    slow.join()
    other.join()
    assert [one.tenant_id for one in FileAnchor(path).anchors()] == ["a", "b"]


@pytest.mark.parametrize("number", [5, 6])
def test_a_checkpoint_of_another_trail_leaves_the_anchor_in_its_place_for_good(tmp_path: Path, number: int) -> None:
    anchor = FileAnchor(tmp_path / anchors.FILE)
    anchor(made(5))
    anchor(made(4, trail="second"))
    with pytest.raises(AnchorTorn, match="cut or rewritten"):
        anchor(made(number, trail="second"))
    for later in range(number, 20):
        anchor(made(later, trail="second"))
    assert anchor.anchors() == [Anchor("acme", 5, made(5).hash)]


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b'{"acme": 3}', b'{"acme": {"number": 1, "hash": "00"}}', b'{"acme": {"number": 0, "hash": ""}}'],
)
def test_a_file_that_holds_no_checkpoints_is_named(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / anchors.FILE
    path.write_bytes(text)
    with pytest.raises(AnchorUnreadable, match=anchors.FILE):
        FileAnchor(path).anchors()
    with pytest.raises(AnchorUnreadable):
        FileAnchor(path)(made(1))
    assert path.read_bytes() == text
