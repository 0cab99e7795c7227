"""Leaving a neighbour alone that fails or has become slow, and finding out when it is well again."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import Literal, Protocol, TypeVar

Answer = TypeVar("Answer")
State = Literal["closed", "open", "half_open"]

BUCKETS = 10
"""Parts of the window; what is counted is forgotten a part at a time."""
IN_A_ROW = 3
"""Failures one after the other that open it whatever the window says: under much traffic the good calls before a
neighbour fell silent would outweigh them for most of the window."""
MAX_OPEN_S = 10.0
"""A neighbour that is well again is asked again after no more than this, jitter aside."""
JITTER = 0.1
"""Share of open_s by which it varies, so that many processes do not all probe at once."""


class BreakerOpen(Exception):
    """The call was not made. name: of the breaker.  retry_after_s: until the next probe is let through, in seconds."""

    def __init__(self, name: str, retry_after_s: float) -> None:
        super().__init__(f"{name}: failed or was slow too often, and is left alone for {retry_after_s:.1f} s")
        self.name = name
        self.retry_after_s = retry_after_s


class Watched(Protocol):
    """What a breaker, or several as one, tell of themselves."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> State: ...
    @property
    def state_age_s(self) -> float: ...
    @property
    def opened(self) -> int: ...
    @property
    def rejected(self) -> int: ...


class Breaker:
    """Stands before one neighbour; opens when too many of the last calls failed or were slow, or IN_A_ROW failed.

    failures: the exceptions that mean the neighbour is not well; any other, such as a refused row, is an answer.
    failure_rate, slow_rate: the shares of the last window_s seconds at which it opens, once min_calls are in them; as
    many have to stand behind failures in a row.
    slow_s: a call that takes as long or longer is slow; math.inf for never.
    open_s: how long it stays open, give or take a tenth.  probes: how many calls it then lets through at once; as many
    good ones in a row close it, a bad one opens it again.
    clock: seconds, never going back.  random: 0 to 1.

    on_change: told the old and the new state after a change, from within a call; it must not raise.
    `opened` counts how often it opened, `rejected` the calls not made.

    # Design: a cancelled call tells nothing, since callers give up for reasons of their own. So a call must bound its
    own time with an error of `failures`, inside the breaker: otherwise a neighbour that hangs is never seen to, and
    probes that hang keep their places.
    What a call begun before the last change of state has to tell is out of date, and not counted either.
    """

    __slots__ = (
        "_changed",
        "_changes",
        "_clock",
        "_failure_rate",
        "_failures",
        "_min_calls",
        "_open_s",
        "_probes",
        "_probing",
        "_proven",
        "_random",
        "_row_calls",
        "_row_weight",
        "_slow_rate",
        "_slow_s",
        "_state",
        "_until",
        "_window",
        "name",
        "on_change",
        "opened",
        "rejected",
    )

    def __init__(
        self,
        name: str,
        *,
        failures: tuple[type[BaseException], ...],
        failure_rate: float = 0.5,
        slow_rate: float = 0.8,
        slow_s: float = 0.5,
        min_calls: int = 10,
        window_s: float = 10.0,
        open_s: float = 2.0,
        probes: int = 3,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
        on_change: Callable[[State, State], None] | None = None,
    ) -> None:
        for kind in failures:
            if not issubclass(kind, Exception):
                raise ValueError(f"failures must hold subclasses of Exception, and {kind.__name__} tells nothing")
        for rate_name, rate in (("failure_rate", failure_rate), ("slow_rate", slow_rate)):
            if not 0 < rate <= 1:
                raise ValueError(f"{rate_name} must be above 0 and at most 1, not {rate!r}")
        for time_name, seconds in (("slow_s", slow_s), ("window_s", window_s), ("open_s", open_s)):
            if not seconds > 0:
                raise ValueError(f"{time_name} must be above 0, not {seconds!r}")
        if open_s > MAX_OPEN_S:
            raise ValueError(f"open_s must be at most {MAX_OPEN_S:g}, not {open_s!r}")
        for count_name, count in (("min_calls", min_calls), ("probes", probes)):
            if count < 1:
                raise ValueError(f"{count_name} must be at least 1, not {count!r}")
        self.name = name
        self.on_change = on_change
        self.opened = 0
        self.rejected = 0
        self._failures = failures
        self._failure_rate = failure_rate
        self._slow_rate = slow_rate
        self._slow_s = slow_s
        self._min_calls = min_calls
        self._open_s = open_s
        self._probes = probes
        self._clock = clock
        self._random = random
        self._window = _Window(window_s)
        self._state: State = "closed"
        self._changes = 0
        self._changed = clock()
        self._until = 0.0
        self._probing = 0
        self._proven = 0
        self._row_calls = 0
        self._row_weight = 0

    @property
    def state(self) -> State:
        """The state that a call would meet now."""
        if self._state == "open" and self._clock() >= self._until:
            return "half_open"
        return self._state

    @property
    def state_age_s(self) -> float:
        """For how long the state has been what it is, in seconds; half open is reckoned from when it opened."""
        return self._clock() - self._changed

    async def call(self, call: Callable[[], Awaitable[Answer]], weight: int = 1) -> Answer:
        """The call's answer or error, unchanged. weight: how many requests stand behind it, at least 1.

        Raises BreakerOpen, without having called.
        """
        if weight < 1:
            raise ValueError(f"weight must be at least 1, not {weight!r}")
        probe = self._state != "closed"
        if probe:
            self._admit()
        changes = self._changes
        started = self._clock()
        try:
            answer = await call()
        except Exception as error:
            self._learn(changes, started, weight, isinstance(error, self._failures))
            raise
        else:
            self._learn(changes, started, weight, False)
            return answer
        finally:
            if probe:
                self._probing -= 1

    def _admit(self) -> None:
        """Take the place of a probe. Raises BreakerOpen where there is none."""
        if self._state == "open":
            left_s = self._until - self._clock()
            if left_s > 0:
                self.rejected += 1
                raise BreakerOpen(self.name, left_s)
            self._change("half_open")
        if self._probing >= self._probes:
            self.rejected += 1
            # When a probe ends is not known. After slow_s it is a bad one, and open_s begins.
            raise BreakerOpen(self.name, min(self._slow_s, self._open_s))
        self._probing += 1

    def _learn(self, changes: int, started: float, weight: int, failed: bool) -> None:
        """Count a call that ended, and change the state if it has to."""
        if changes != self._changes:
            return
        now = self._clock()
        slow = now - started >= self._slow_s
        if self._state == "closed":
            window = self._window
            window.add(now, weight, failed, slow)
            if failed:
                self._row_calls += 1
                self._row_weight += weight
            else:
                self._row_calls = self._row_weight = 0
            if (window.failed or window.slow) and self._is_too_much(window):
                self._open(now)
        elif failed or slow:
            self._open(now)
        else:
            self._proven += 1
            if self._proven >= self._probes:
                self._window.clear()
                self._change("closed")

    def _is_too_much(self, window: _Window) -> bool:
        total = window.total
        return total >= self._min_calls and (
            window.failed / total >= self._failure_rate
            or window.slow / total >= self._slow_rate
            or (self._row_calls >= IN_A_ROW and self._row_weight >= self._min_calls)
        )

    def _open(self, now: float) -> None:
        self._until = now + self._open_s * (1 - JITTER + 2 * JITTER * self._random())
        self.opened += 1
        self._change("open")

    def _change(self, new: State) -> None:
        old, self._state = self._state, new
        self._changed = self._clock()
        self._changes += 1
        self._proven = self._row_calls = self._row_weight = 0
        if self.on_change is not None:
            self.on_change(old, new)


class _Window:
    """The weights of the calls that ended in the last `length_s` seconds: all, the failed and the slow among them.

    # Design: a ring of buckets, each a tenth of the time. The sums are kept beside them, so a call costs the same
    whatever is in the window. The oldest bucket goes as a whole, so the window reaches back nine to ten tenths.
    """

    __slots__ = ("_bucket", "_buckets", "_number", "_per_s", "failed", "slow", "total")

    def __init__(self, length_s: float) -> None:
        self._per_s = BUCKETS / length_s
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.total = self.failed = self.slow = 0
        self._buckets = [[0, 0, 0] for _ in range(BUCKETS)]
        self._number = 0
        self._bucket = self._buckets[0]

    def add(self, now: float, weight: int, failed: bool, slow: bool) -> None:
        """Count a call, and forget what is too old by now."""
        number = int(now * self._per_s)
        if number > self._number:
            self._forget(number)
        bucket = self._bucket
        bucket[0] += weight
        self.total += weight
        if failed:
            bucket[1] += weight
            self.failed += weight
        if slow:
            bucket[2] += weight
            self.slow += weight

    def _forget(self, number: int) -> None:
        """Go on to the bucket of this number, emptying it and those passed over."""
        for passed in range(max(self._number + 1, number - BUCKETS + 1), number + 1):
            bucket = self._buckets[passed % BUCKETS]
            self.total -= bucket[0]
            self.failed -= bucket[1]
            self.slow -= bucket[2]
            bucket[:] = 0, 0, 0
        self._number = number
        self._bucket = self._buckets[number % BUCKETS]
