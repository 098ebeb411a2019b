"""The dispatches that wait for a worker, by pool and handler.

A queue may hold entries of dispatches that were cancelled or moved since (stale ones): they do not count, and are
dropped when they come to the head or outnumber the others, which keeps every operation O(1) in the mean.
"""

from __future__ import annotations

from collections import Counter, deque

from tickwheel_operator.engine.dispatch.strategies import ROUND_ROBIN, Strategy
from tickwheel_operator.engine.dispatch.worker import LiveWorker
from tickwheel_operator.engine.model.places import LEASED, QUEUED, Place, WaitingRoom
from tickwheel_operator.engine.model.runs import Dispatch

__all__ = ["HandlerQueue", "PoolQueue"]


_STALE_KEPT = 32


class HandlerQueue(WaitingRoom):
    """One handler of one pool: what waits for it, and the workers that could take it now."""

    __slots__ = ("ahead", "due", "handler", "pool", "retroactive", "stale", "waiting", "workers")

    def __init__(self, handler: str, pool: PoolQueue) -> None:
        self.handler = handler
        self.pool = pool
        self.due: deque[Dispatch] = deque()
        self.retroactive: deque[Dispatch] = deque()
        """Runs that make up for the past: whatever waits in `due` goes before them."""
        self.ahead: deque[Dispatch] = deque()
        """Dispatches whose instant is near, for workers that know the time. Each has a timer beside."""
        self.stale = 0
        """Entries of both queues whose dispatch waits here no more."""
        self.waiting: dict[LiveWorker, None] = {}
        """Workers with an open pull and credit, the one whose turn it is first (round robin)."""
        self.workers = 0
        """Live workers that registered the handler."""

    def enqueue(self, dispatch: Dispatch) -> None:
        """The dispatch, which waits nowhere, waits at the tail; or at the head, if its run goes ahead of others."""
        dispatch.place, dispatch.where = QUEUED, self
        run = dispatch.run
        if run.execution.retroactive:
            self.retroactive.append(dispatch)
        elif run.front:
            self.due.appendleft(dispatch)
        else:
            self.due.append(dispatch)
        self.pool.waits += 1

    def head(self) -> Dispatch | None:
        """The dispatch whose turn it is; None: nothing waits. Drops stale entries."""
        for queue in (self.due, self.retroactive):
            while queue:
                dispatch = queue[0]
                if dispatch.where is self and dispatch.place is QUEUED:
                    return dispatch
                queue.popleft()
                self.stale -= 1
        return None

    def ahead_head(self) -> Dispatch | None:
        """The dispatch that may be leased before its instant; None: there is none. Drops those whose instant came."""
        ahead = self.ahead
        while ahead:
            dispatch = ahead[0]
            if dispatch.where is self and dispatch.place is Place.EXPECTED:
                return dispatch
            ahead.popleft()
        return None

    def take(self, dispatch: Dispatch) -> None:
        """The head, which a worker gets."""
        (self.due or self.retroactive).popleft()
        dispatch.place, dispatch.where = LEASED, None
        self.pool.waits -= 1

    def withdraw(self) -> None:
        """A dispatch that waited here has left: its entry is stale."""
        self.pool.waits -= 1
        self.stale += 1
        if self.stale > _STALE_KEPT and 2 * self.stale > self._entries():
            # One entry each: a dispatch that went and came back has two.
            self.due, self.retroactive = (
                deque(dict.fromkeys(d for d in queue if d.where is self and d.place is QUEUED))
                for queue in (self.due, self.retroactive)
            )
            self.stale = 0
        self.drop_if_unused()

    def drop_if_unused(self) -> None:
        """Nothing waits here and nobody could take it: a handler that was renamed leaves nothing behind."""
        if not self.workers and self._entries() == self.stale:
            queues = self.pool.queues
            if queues.get(self.handler) is self:
                del queues[self.handler]

    def _entries(self) -> int:
        return len(self.due) + len(self.retroactive)


class PoolQueue(WaitingRoom):
    """All queues of one pool."""

    __slots__ = ("aside", "declared", "queues", "schemas", "silence_ms", "strategy", "waits", "workers")

    def __init__(self, silence_ms: int) -> None:
        self.strategy: Strategy = ROUND_ROBIN
        self.declared = False
        """Its object exists: work and workers may be there before it and after it."""
        self.waits = 0
        """Dispatches that wait in all queues: asked for with every task that fires."""
        self.aside = 0
        """Dispatches that wait for their instant (a delay, a jitter, a backoff), or for other runs."""
        self.queues: dict[str, HandlerQueue] = {}
        self.workers: dict[str, LiveWorker] = {}
        self.schemas: Counter[str] = Counter()
        """How many live workers have the handlers' schemas of each hash."""
        self.silence_ms = silence_ms

    def queue(self, handler: str) -> HandlerQueue:
        queue = self.queues.get(handler)
        if queue is None:
            queue = self.queues[handler] = HandlerQueue(handler, self)
        return queue

    def backlog(self) -> int:
        """Dispatches that wait for a worker."""
        return self.waits

    def unleased(self) -> int:
        """Runs that wait, whatever for: what `EngineConfig.max_backlog` bounds."""
        return self.waits + self.aside
