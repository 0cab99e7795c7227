"""What a request costs its caller, and what the caller is told of it."""

from __future__ import annotations

from app.edge.request import Request
from app.errors import Refusal, TooManyRequests
from app.limits.limiter import Allowance, Limiter, Taken, fields


class Rates:
    """Takes requests from their callers' allowances; the answer to a request then tells what is left."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def charge_at_once(self, request: Request) -> bool:
        """Take one request where that needs no waiting; False where `charge` has to. Raises TooManyRequests."""
        # PERF: benchmarks/test_service.py::test_edge: a coroutine less for every request.
        allowance: Allowance | None = request.principal.allowance
        if allowance is None:
            return True
        taken = self._limiter.take_at_once(allowance)
        if taken is None:
            return False
        _settle(request, allowance, taken, 1)
        return True

    async def charge(self, request: Request, cost: int = 1) -> None:
        """Take so much from the caller's allowance. Raises TooManyRequests; then nothing was taken."""
        request.owes = False
        allowance: Allowance | None = request.principal.allowance
        if allowance is not None:
            _settle(request, allowance, await self._limiter.take(allowance, cost), cost)

    def trust(self, request: Request) -> None:
        """Let a request in that will say by itself what it costs, by `charge`. Raises TooManyRequests where even one is
        known to be too much."""
        allowance: Allowance | None = request.principal.allowance
        if allowance is not None:
            refused = self._limiter.refused(allowance)
            if refused is not None:
                _settle(request, allowance, refused, 1)
            request.owes = True

    async def collect(self, request: Request, error: Exception) -> Exception:
        """Charge one to a request that failed before it said what it costs; what its caller is told of the two."""
        try:
            await self.charge(request)
        except TooManyRequests as refused:
            # A fault of the service's own is still to be known as such.
            return refused if isinstance(error, Refusal) else error
        return error


def _settle(request: Request, allowance: Allowance, taken: Taken, cost: int) -> None:
    told = fields(allowance, taken)
    if not taken.granted:
        what = "More requests than this key may make." if cost == 1 else f"A request of {cost:,} is too much now."
        raise TooManyRequests(f"{what} Nothing was recorded. Try again after Retry-After.", taken.wait_s, told)
    request.fields = told
