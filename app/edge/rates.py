"""What a request costs its caller, and what the caller is told of it."""

from __future__ import annotations

from app.edge.request import Request
from app.errors import TooManyRequests
from app.limits.limiter import Allowance, Limiter, fields


class Rates:
    """Takes requests from their callers' allowances."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    async def charge(self, request: Request, cost: int = 1) -> None:
        """Take so much from the caller's allowance; the request's answer will tell what is left.

        Raises TooManyRequests; then nothing was taken.
        """
        allowance: Allowance | None = request.principal.allowance
        if allowance is None:
            return
        taken = await self._limiter.take(allowance, cost)
        told = fields(allowance, taken)
        if not taken.granted:
            what = "More requests than this key may make." if cost == 1 else f"A request of {cost:,} is too much now."
            raise TooManyRequests(f"{what} Nothing was recorded. Try again after Retry-After.", taken.wait_s, told)
        request.fields = told
