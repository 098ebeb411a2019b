"""The workers that are connected, and whose turn it is.

Nothing here is durable: a new leader learns its workers from their next pull. `Router` keeps, for each pool and
handler, the workers that wait for work with credit to spare, in the order of their turns, and deals dispatches to those
that may have them (`engine.dispatch.eligibility`), as the pool's strategy chooses (`engine.dispatch.strategies`). A
kind of dispatch that no worker may have now stops no other: due ones, backfills and those ahead of their instant are
dealt apart.

Invariant: a dispatch is in one place (`engine.model.places`). Whoever gives it a place takes it from the one before
(`_leave`).
"""

from __future__ import annotations

from collections.abc import Hashable

from tickwheel_operator.engine.dispatch.eligibility import has_slots_to_spare, knows_the_time
from tickwheel_operator.engine.dispatch.queues import HandlerQueue, PoolQueue
from tickwheel_operator.engine.dispatch.worker import LiveWorker
from tickwheel_operator.engine.messages import WorkerKey, WorkerSeen
from tickwheel_operator.engine.model.places import Place
from tickwheel_operator.engine.model.runs import Dispatch

__all__ = ["Router"]

_DEFAULT_SILENCE_MS = 10_000


class Router:
    """Pools, their queues and their live workers."""

    def __init__(self, *, early_offset_ms: int = 1_000, early_error_ms: int = 10) -> None:
        self._early_offset_us = early_offset_ms * 1_000
        self._early_error_us = early_error_ms * 1_000
        self._reserved: dict[LiveWorker, list[Dispatch]] = {}
        """Dealt before their turn in this command, since their instant is ahead."""
        self._stranded: list[Dispatch] = []
        self.pools: dict[tuple[str, str], PoolQueue] = {}
        self._ready: dict[HandlerQueue, None] = {}
        """Queues in which a dispatch may meet a worker, since something changed."""

    def pool(self, namespace: str, name: str) -> PoolQueue:
        """The pool, made when it is first named: work and workers may come before the object does."""
        key = (namespace, name)
        pool = self.pools.get(key)
        if pool is None:
            pool = self.pools[key] = PoolQueue(_DEFAULT_SILENCE_MS)
        return pool

    def declare(self, namespace: str, name: str, silence_ms: int) -> None:
        """The pool's object exists."""
        pool = self.pool(namespace, name)
        pool.declared = True
        pool.silence_ms = silence_ms

    def forget_pool(self, namespace: str, name: str) -> None:
        """The object is gone; what waits in the pool, and who works for it, keeps it here."""
        pool = self.pools.get((namespace, name))
        if pool is not None:
            pool.declared = False
            self.drop_unused()

    def drop_unused(self) -> None:
        """Forget the pools that have no object, no work and no workers."""
        unused = [key for key, pool in self.pools.items() if not (pool.declared or pool.workers or pool.unleased())]
        for key in unused:
            del self.pools[key]

    def enqueue(self, pool: PoolQueue, handler: str, dispatch: Dispatch) -> None:
        """The dispatch is ready: it waits at the tail, unless it waits there already. It leaves any other place."""
        queue = pool.queue(handler)
        if dispatch.where is queue and dispatch.place is Place.QUEUED:
            return
        self._leave(dispatch)
        queue.enqueue(dispatch)
        if queue.waiting:
            self._ready[queue] = None

    def set_aside(self, dispatch: Dispatch, pool: PoolQueue, place: Place) -> None:
        """The dispatch is delayed, or blocked by other runs, and counts in its pool all the same."""
        if dispatch.where is not pool:
            self._leave(dispatch)
            dispatch.where = pool
            pool.aside += 1
        dispatch.place = place

    def leave_place(self, dispatch: Dispatch) -> None:
        """The dispatch waits nowhere, if it did: it has ended, or nobody knows what it is about."""
        self._leave(dispatch)
        dispatch.place = Place.NOWHERE

    def _leave(self, dispatch: Dispatch) -> None:
        """It counts no more where it was. The caller says where it is next."""
        where = dispatch.where
        if where is None:  # nearly always, where work comes as fast as possible
            return
        dispatch.where = None
        match where:
            case HandlerQueue() if dispatch.place is Place.QUEUED:
                where.withdraw()
            case HandlerQueue():
                where.pool.aside -= 1
                where.ahead_head()
            case PoolQueue():
                where.aside -= 1
            case LiveWorker():
                self._give_back(dispatch, where)

    @staticmethod
    def keep(dispatch: Dispatch) -> None:
        """A worker has the dispatch since before this leader led."""
        dispatch.place = Place.LEASED

    def _give_back(self, dispatch: Dispatch, worker: LiveWorker) -> None:
        """The worker, if it still waits, may have something else in its stead."""
        self._reserved[worker].remove(dispatch)
        if worker.request is None:
            return
        worker.credit += 1
        worker.free += 1
        self._offer(worker)

    def _offer(self, worker: LiveWorker) -> None:
        """The worker takes what waits for its handlers."""
        for handler in worker.handlers:
            queue = worker.pool.queue(handler)
            queue.waiting.setdefault(worker)
            if queue.due or queue.retroactive or (queue.ahead and worker.early):
                self._ready[queue] = None

    def find(self, key: WorkerKey) -> LiveWorker | None:
        pool = self.pools.get((key.namespace, key.pool))
        return pool.workers.get(key.name) if pool else None

    def join(self, seen: WorkerSeen, now_ms: int) -> LiveWorker:
        """A worker process that was not known."""
        worker = LiveWorker(seen, self.pool(seen.key.namespace, seen.key.pool))
        worker.seen_ms = now_ms
        worker.pool.workers[seen.key.name] = worker
        return worker

    def leave(self, worker: LiveWorker) -> None:
        """The worker is gone; its open pull, if any, is the caller's to answer."""
        self.stop_waiting(worker)
        self._set_handlers(worker, ())
        self._set_schemas(worker, None)
        if worker.pool.workers.get(worker.key.name) is worker:
            del worker.pool.workers[worker.key.name]

    def update(self, worker: LiveWorker, seen: WorkerSeen) -> None:
        """Take over what a pull says of the worker."""
        worker.slots = seen.slots
        worker.draining = seen.draining
        worker.cpu = seen.cpu
        worker.memory = seen.memory
        worker.labels = seen.labels
        error_us = worker.clock_error_us = seen.clock_error_us
        worker.clock_offset_us = seen.clock_offset_us
        worker.early = (
            error_us is not None
            and error_us <= self._early_error_us
            and abs(seen.clock_offset_us) <= self._early_offset_us
        )
        if seen.handlers != worker.handlers:
            self._set_handlers(worker, seen.handlers)
        if seen.schemas != worker.schemas:
            self._set_schemas(worker, seen.schemas)

    @staticmethod
    def _set_schemas(worker: LiveWorker, schemas: str | None) -> None:
        counts = worker.pool.schemas
        if worker.schemas is not None:
            counts[worker.schemas] -= 1
            if not counts[worker.schemas]:
                del counts[worker.schemas]
        if schemas is not None:
            counts[schemas] += 1
        worker.schemas = schemas

    @staticmethod
    def _set_handlers(worker: LiveWorker, handlers: tuple[str, ...]) -> None:
        before = [worker.pool.queue(handler) for handler in worker.handlers]
        worker.handlers = handlers
        for handler in handlers:
            worker.pool.queue(handler).workers += 1
        for queue in before:
            queue.workers -= 1
            queue.drop_if_unused()

    def wait(self, worker: LiveWorker, request: Hashable, credit: int, until_ms: int, free: int) -> None:
        """The worker has an open pull and takes up to `credit` dispatches, for which it has `free` slots."""
        worker.free = free
        worker.request = request
        worker.until_ms = until_ms
        worker.credit = credit
        if credit > 0:
            self._offer(worker)

    def stop_waiting(self, worker: LiveWorker) -> None:
        """The worker's pull is answered or gone."""
        if worker.credit or worker.request is not None:
            for handler in worker.handlers:
                worker.pool.queue(handler).waiting.pop(worker, None)
        worker.request = None
        worker.credit = 0
        for dispatch in self._reserved.pop(worker, ()):
            dispatch.where = None
            self.set_aside(dispatch, worker.pool, Place.DELAYED)
            self._stranded.append(dispatch)

    def take_stranded(self) -> list[Dispatch]:
        """What was reserved for pulls that were answered or broke off in this command: it needs another place."""
        stranded, self._stranded = self._stranded, []
        return stranded

    def reserve(self, pool: PoolQueue, handler: str, dispatch: Dispatch) -> bool:
        """Deal a dispatch whose instant is ahead, to a worker that knows the time; false: there is none to spare."""
        queue = pool.queues.get(handler)
        if queue is None or queue.due:
            return False
        worker = pool.strategy.choose(dispatch, filter(knows_the_time, queue.waiting))
        if worker is None:
            return False
        self._leave(dispatch)
        self._reserved.setdefault(worker, []).append(dispatch)
        dispatch.place, dispatch.where = Place.RESERVED, worker
        self._spend(worker, queue)
        return True

    def expect(self, pool: PoolQueue, handler: str, dispatch: Dispatch) -> None:
        """The dispatch's instant is near: the next worker that comes and knows the time may have it."""
        queue = pool.queue(handler)
        if dispatch.where is queue and dispatch.place is Place.EXPECTED:
            return
        self._leave(dispatch)
        queue.ahead_head()
        queue.ahead.append(dispatch)
        dispatch.place, dispatch.where = Place.EXPECTED, queue
        pool.aside += 1

    def deal(self) -> dict[LiveWorker, list[Dispatch]]:
        """Match what waits with who waits. The caller leases the dispatches and answers the pulls."""
        dealt, self._reserved = self._reserved, {}
        for reserved in dealt.values():
            for one in reserved:
                one.place, one.where = Place.LEASED, None
        for queue in self._ready:
            waiting, choose = queue.waiting, queue.pool.strategy.choose
            while waiting and (dispatch := queue.head()) is not None:
                worker = choose(dispatch, waiting if queue.due else filter(has_slots_to_spare, waiting))
                if worker is None:
                    break
                queue.take(dispatch)
                mine = dealt.get(worker)
                if mine is None:
                    dealt[worker] = [dispatch]
                else:
                    mine.append(dispatch)
                self._spend(worker, queue)
            while queue.ahead and not queue.due and (dispatch := queue.ahead_head()) is not None:
                worker = choose(dispatch, filter(knows_the_time, waiting))
                if worker is None:
                    break
                queue.ahead.popleft()
                queue.pool.aside -= 1
                dispatch.place, dispatch.where = Place.LEASED, None
                dealt.setdefault(worker, []).append(dispatch)
                self._spend(worker, queue)
        self._ready.clear()
        return dealt

    @staticmethod
    def _spend(worker: LiveWorker, queue: HandlerQueue) -> None:
        """The worker takes one more: it is the last in its turn, or has no credit left."""
        waiting = queue.waiting
        del waiting[worker]
        worker.credit -= 1
        worker.free -= 1
        if worker.credit:
            waiting[worker] = None
        else:
            for handler in worker.handlers:
                worker.pool.queue(handler).waiting.pop(worker, None)
