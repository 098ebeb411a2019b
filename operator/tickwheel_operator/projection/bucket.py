"""A token bucket: at most so many writes a second, whoever wants to write.

Invariant: over any span the tokens taken are at most `burst + rate * span`; who asks first gets first.
"""

from __future__ import annotations

import asyncio

__all__ = ["Bucket"]


class Bucket:
    """Tokens of one event loop."""

    def __init__(self, rate: float, burst: float) -> None:
        """`rate` is in tokens a second, more than 0; `burst` is how many gather while nobody asks, 1 or more."""
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._filled: float | None = None
        self._turn = asyncio.Lock()

    async def take(self) -> None:
        """Wait for a token."""
        async with self._turn:
            self._fill()
            if self._tokens < 1:
                await asyncio.sleep((1 - self._tokens) / self._rate)
                self._fill()
            self._tokens -= 1

    def take_now(self) -> bool:
        """Take a token if there is one."""
        self._fill()
        if self._tokens < 1 or self._turn.locked():
            return False
        self._tokens -= 1
        return True

    def _fill(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._filled is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
