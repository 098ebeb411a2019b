"""The dispatches that wait for a worker, by pool and handler.

A queue may hold entries of dispatches that were cancelled or moved since (stale ones): they do not count, and are
dropped when they come to the head or outnumber the others, which keeps every operation O(1) in the mean.
"""

from __future__ import annotations

from collections import deque

from tickwheel_operator.engine.state import Dispatch
from tickwheel_operator.engine.worker import LiveWorker

__all__ = ["Lane", "PoolQueue"]


_STALE_KEPT = 32


class Lane:
    """One handler of one pool: what waits for it, and the workers that could take it now."""

    __slots__ = ("_pool", "handler", "queue", "stale", "waiting", "workers")

    def __init__(self, handler: str, pool: PoolQueue) -> None:
        self.handler = handler
        self._pool = pool
        self.queue: deque[Dispatch] = deque()
        self.stale = 0
        """Entries of the queue whose dispatch waits here no more."""
        self.waiting: dict[LiveWorker, None] = {}
        """Workers with an open pull and credit, the one whose turn it is first (round robin)."""
        self.workers = 0
        """Live workers that registered the handler."""

    def enqueue(self, dispatch: Dispatch) -> None:
        """The dispatch, which waits nowhere, waits at the tail."""
        dispatch.lane = self
        self.queue.append(dispatch)
        self._pool.waits += 1

    def take(self) -> Dispatch | None:
        """The head, which waits no more; None: it was a stale entry. The queue must not be empty."""
        dispatch = self.queue.popleft()
        if dispatch.lane is not self:
            self.stale -= 1
            return None
        dispatch.lane = None
        self._pool.waits -= 1
        return dispatch

    def withdraw(self, dispatch: Dispatch) -> None:
        """The dispatch, which waits here, waits no more."""
        dispatch.lane = None
        self._pool.waits -= 1
        self.stale += 1
        if self.stale > _STALE_KEPT and 2 * self.stale > len(self.queue):
            # One entry each: a dispatch that went and came back has two.
            self.queue = deque(dict.fromkeys(d for d in self.queue if d.lane is self))
            self.stale = 0
        self.drop_if_unused()

    def drop_if_unused(self) -> None:
        """Nothing waits here and nobody could take it: a handler that was renamed leaves nothing behind."""
        if not self.workers and len(self.queue) == self.stale:
            lanes = self._pool.lanes
            if lanes.get(self.handler) is self:
                del lanes[self.handler]


class PoolQueue:
    """All lanes of one pool."""

    __slots__ = ("declared", "lanes", "silence_ms", "waits", "workers")

    def __init__(self, silence_ms: int) -> None:
        self.declared = False
        """Its object exists: work and workers may be there before it and after it."""
        self.waits = 0
        """Dispatches that wait in all lanes: asked for with every task that fires."""
        self.lanes: dict[str, Lane] = {}
        self.workers: dict[str, LiveWorker] = {}
        self.silence_ms = silence_ms

    def lane(self, handler: str) -> Lane:
        lane = self.lanes.get(handler)
        if lane is None:
            lane = self.lanes[handler] = Lane(handler, self)
        return lane

    def backlog(self) -> int:
        """Dispatches that wait."""
        return self.waits
