"""Letting other threads have the interpreter sooner, while something long is being worked."""

from __future__ import annotations

import sys
from types import TracebackType

SHORT_S = 0.0005


class ShortTurns:
    """While at least one `with` block is open, a thread that wants the interpreter waits half a millisecond for it.

    The server hands requests over from threads of its own, several times a request; at the usual 5 ms each, a batch at
    work would let few single requests through. Always short turns would cost all requests a tenth of their throughput.
    """

    __slots__ = ("_open", "_usual_s")

    def __init__(self) -> None:
        self._open = 0
        self._usual_s = sys.getswitchinterval()

    def __enter__(self) -> None:
        if not self._open:
            self._usual_s = sys.getswitchinterval()
            sys.setswitchinterval(SHORT_S)
        self._open += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open -= 1
        if not self._open:
            sys.setswitchinterval(self._usual_s)
