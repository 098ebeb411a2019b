"""Fair turns at something scarce: a bounded number at once, source after source, so that no source makes others wait.

For what strangers may ask for in any number: the gateway's reviews of tokens and permissions, and the look-ups of
pods' owners. A source is whatever the caller is told apart by: an address, a namespace. Invariants: no more than `most`
hold a turn at once, a source that waits gets the next turn before another source gets two, and all that is remembered
is bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

__all__ = ["Allowance", "Crowded", "Turns"]


class Crowded(Exception):
    """Too many wait already."""


class Turns:
    """Who may go on now. On one event loop only."""

    def __init__(self, most: int, *, most_of_one: int, waiting: int) -> None:
        """`most` at once, `most_of_one` of them of one source, so that one that hangs leaves some to others. Beyond
        `waiting` in all, the source that has the most waiting loses its latest."""
        self._most = most
        self._most_of_one = most_of_one
        self._most_waiting = waiting
        self._holding: dict[Hashable, int] = {}
        self._held = 0
        self._queues: dict[Hashable, deque[asyncio.Future[None]]] = {}
        """Those that wait by source; the source whose turn is next comes first."""
        self._waiting = 0

    @property
    def is_idle(self) -> bool:
        """Nobody holds a turn, or waits for one."""
        return not self._held and not self._waiting

    @asynccontextmanager
    async def of(self, source: Hashable) -> AsyncIterator[None]:
        """Wait for a turn, and hold it. Raises `Crowded`."""
        await self._take(source)
        try:
            yield
        finally:
            self._give_back(source)

    async def _take(self, source: Hashable) -> None:
        if self._may(source):
            self._hold(source)
            return
        self._make_room(source)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(source, deque()).append(turn)
        self._waiting += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._give_back(source)  # it came in the same moment
            else:
                self._leave(source, turn)
            raise

    def _may(self, source: Hashable) -> bool:
        return self._held < self._most and self._holding.get(source, 0) < self._most_of_one

    def _hold(self, source: Hashable) -> None:
        self._held += 1
        self._holding[source] = self._holding.get(source, 0) + 1

    def _make_room(self, source: Hashable) -> None:
        if self._waiting < self._most_waiting:
            return
        longest = max(self._queues, key=lambda known: len(self._queues[known]))
        if len(self._queues[longest]) <= len(self._queues.get(source, ())) + 1:
            raise Crowded
        latest = self._queues[longest][-1]
        self._leave(longest, latest)
        if not latest.done():
            latest.set_exception(Crowded())

    def _leave(self, source: Hashable, turn: asyncio.Future[None]) -> None:
        queue = self._queues.get(source)
        if queue is not None and turn in queue:
            queue.remove(turn)
            self._waiting -= 1
            if not queue:
                del self._queues[source]

    def _give_back(self, source: Hashable) -> None:
        self._held -= 1
        self._holding[source] -= 1
        if not self._holding[source]:
            del self._holding[source]
        while self._held < self._most:
            following = next((known for known in self._queues if self._may(known)), None)
            if following is None:
                return
            queue = self._queues.pop(following)
            turn = queue.popleft()
            self._waiting -= 1
            if queue:
                self._queues[following] = queue  # behind all others
            # One that was cancelled in this moment has not left the queue yet.
            if not turn.done():
                self._hold(following)
                turn.set_result(None)


class Allowance:
    """How often each source may fail: a burst, refilled at a rate. The source that failed longest ago is forgotten
    when there are too many."""

    def __init__(self, *, per_s: float, burst: int, sources: int = 10_000) -> None:
        self._per_ms = per_s / 1000
        self._burst = burst
        self._sources = sources
        self._spent: dict[Hashable, tuple[float, int]] = {}
        """What is spent, and as of when."""

    def is_left(self, source: Hashable, boot_ms: int) -> bool:
        """Whether it may fail once more."""
        return self._spent_by(source, boot_ms) + 1 <= self._burst

    def spend(self, source: Hashable, boot_ms: int) -> None:
        """It failed."""
        spent = self._spent_by(source, boot_ms) + 1
        self._spent.pop(source, None)
        if len(self._spent) >= self._sources:
            del self._spent[next(iter(self._spent))]
        self._spent[source] = (spent, boot_ms)

    def _spent_by(self, source: Hashable, boot_ms: int) -> float:
        spent, as_of_ms = self._spent.get(source, (0.0, boot_ms))
        return max(0.0, spent - (boot_ms - as_of_ms) * self._per_ms)
