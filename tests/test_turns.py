"""Short turns of the interpreter last as long as a block is open, and no longer."""

from __future__ import annotations

import sys

import pytest

from app.resilience.turns import SHORT_S, ShortTurns


def test_the_interval_is_short_while_any_block_is_open_and_then_as_before() -> None:
    usual = sys.getswitchinterval()
    turns = ShortTurns()
    with turns:
        assert sys.getswitchinterval() == pytest.approx(SHORT_S)
        with turns:
            assert sys.getswitchinterval() == pytest.approx(SHORT_S)
        assert sys.getswitchinterval() == pytest.approx(SHORT_S)
    assert sys.getswitchinterval() == pytest.approx(usual)


def test_a_block_that_fails_gives_the_interval_back() -> None:
    usual = sys.getswitchinterval()
    with pytest.raises(ValueError, match="broken"), ShortTurns():
        raise ValueError("broken")
    assert sys.getswitchinterval() == pytest.approx(usual)
