"""How the log bears with a store that fails: growing waits up to a deadline.

Only `ledger.log` uses it. The waits have no jitter, since a partition has one writer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tickwheel_operator.ledger.limits import LedgerLimits, LedgerStats
from tickwheel_operator.ledger.protocol import LedgerError, OutcomeUnknown, StoreForbidden, StoreUnavailable

__all__ = ["Patience"]

_T = TypeVar("_T")


class Patience:
    """How long to wait before the next try, and when to give up: one for each thing that is tried."""

    def __init__(self, limits: LedgerLimits, stats: LedgerStats) -> None:
        self._stats = stats
        self._wait_s = limits.retry_initial_ms / 1000
        self._longest_s = limits.retry_max_ms / 1000
        now_s = asyncio.get_running_loop().time()
        self._end_s = now_s + limits.append_deadline_ms / 1000
        self._forbidden_end_s = min(self._end_s, now_s + limits.forbidden_ms / 1000)

    async def wait(self, error: LedgerError) -> None:
        """Sleep, or raise `error` where the deadline would pass meanwhile."""
        end_s = self._forbidden_end_s if isinstance(error, StoreForbidden) else self._end_s
        if asyncio.get_running_loop().time() + self._wait_s > end_s:
            raise error
        self._stats.retries += 1
        await asyncio.sleep(self._wait_s)
        self._wait_s = min(2 * self._wait_s, self._longest_s)

    async def until_done(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        """The result of an operation that may be tried as often as one likes (a read, a list)."""
        while True:
            try:
                return await operation()
            except (StoreUnavailable, StoreForbidden, OutcomeUnknown) as error:
                await self.wait(error)
