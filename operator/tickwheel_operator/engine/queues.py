"""The dispatches that wait for a worker, by pool and handler.

A queue may hold dispatches that were cancelled or leased since: they are dropped when they come to the head, which
keeps every operation O(1).
"""

from __future__ import annotations

from collections import deque

from tickwheel_operator.engine.state import Dispatch
from tickwheel_operator.engine.worker import LiveWorker

__all__ = ["Lane", "PoolQueue"]


class Lane:
    """One handler of one pool: what waits for it, and the workers that could take it now."""

    __slots__ = ("handler", "queue", "waiting", "workers")

    def __init__(self, handler: str) -> None:
        self.handler = handler
        self.queue: deque[Dispatch] = deque()
        self.waiting: dict[LiveWorker, None] = {}
        """Workers with an open pull and credit, the one whose turn it is first (round robin)."""
        self.workers = 0
        """Live workers that registered the handler."""


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
        """Dispatches that wait, the few stale ones included."""
        return sum(len(lane.queue) for lane in self.lanes.values())
