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

    __slots__ = ("handler", "queue", "stale", "waiting", "workers")

    def __init__(self, handler: str) -> None:
        self.handler = handler
        self.queue: deque[Dispatch] = deque()
        self.stale = 0
        """Entries of the queue whose dispatch waits here no more."""
        self.waiting: dict[LiveWorker, None] = {}
        """Workers with an open pull and credit, the one whose turn it is first (round robin)."""
        self.workers = 0
        """Live workers that registered the handler."""

    def withdraw(self, dispatch: Dispatch) -> None:
        """The dispatch, which waits here, waits no more."""
        dispatch.lane = None
        self.stale += 1
        if self.stale > _STALE_KEPT and 2 * self.stale > len(self.queue):
            # One entry each: a dispatch that went and came back has two.
            self.queue = deque(dict.fromkeys(d for d in self.queue if d.lane is self))
            self.stale = 0


class PoolQueue:
    """All lanes of one pool."""

    __slots__ = ("lanes", "silence_ms", "workers")

    def __init__(self, silence_ms: int) -> None:
        self.lanes: dict[str, Lane] = {}
        self.workers: dict[str, LiveWorker] = {}
        self.silence_ms = silence_ms

    def lane(self, handler: str) -> Lane:
        lane = self.lanes.get(handler)
        if lane is None:
            lane = self.lanes[handler] = Lane(handler)
        return lane

    def backlog(self) -> int:
        """Dispatches that wait."""
        return sum(len(lane.queue) - lane.stale for lane in self.lanes.values())
