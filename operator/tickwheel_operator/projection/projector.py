"""The projector: shows people what the engine knows, at a bounded rate, and writes nothing that is already so.

It is the host's `ViewSink`. What a status says is the affair of its kind (`kinds`); views coalesce per task: what is
written is what holds when its turn comes, and `lanes` says whose turn it is. Only the leader writes (`lead`, `follow`).
Invariants: at most `writes_per_s` requests a second; one slow or failing object delays no other; an object whose stored
status says the same is not written.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from tickwheel_operator.clock import Clock
from tickwheel_operator.engine.read.views import PoolView, TaskView, Views
from tickwheel_operator.engine.triggers.instants import timestamp
from tickwheel_operator.kinds import KINDS
from tickwheel_operator.kinds.descriptor import Later
from tickwheel_operator.kinds.objects import Objects
from tickwheel_operator.kinds.registered import Schemas
from tickwheel_operator.kinds.scheduledtask import SCHEDULED_TASK, SeenTask
from tickwheel_operator.kinds.seen import Seen
from tickwheel_operator.kinds.stored import Stored
from tickwheel_operator.kinds.taskrun import TASK_RUN, SeenRun
from tickwheel_operator.kinds.workerpool import WORKER_POOL
from tickwheel_operator.kinds.world import Requests, Tasks, Workforce, World
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.kube.errors import ApiError
from tickwheel_operator.objectfaults import Layer, ObjectFaults
from tickwheel_operator.projection.bucket import Bucket
from tickwheel_operator.projection.config import ProjectionConfig
from tickwheel_operator.projection.events import EventRecorder
from tickwheel_operator.projection.expiry import Expiry
from tickwheel_operator.projection.failing import Failing
from tickwheel_operator.projection.history import History
from tickwheel_operator.projection.lanes import (
    EXPIRED,
    GENERATIONS,
    HISTORY,
    STATUSES,
    VIEWS,
    WEIGHTS,
    Key,
    lane_of,
    subject,
)
from tickwheel_operator.projection.writer import Writer
from tickwheel_operator.projection.writing import changes, conditions_differ, with_transition_times
from tickwheel_operator.workqueue import WorkQueue

__all__ = ["Projector"]

_log = logging.getLogger(__name__)

_VIEW_COMES_S = 0.5
"""A task that is armed again is shown by the engine within this time: one write instead of two."""
_SLICE = 20
"""Views that are looked at before the event loop has its turn again: about 2 ms."""


class Projector:
    """Writes statuses and TaskRun objects of one partition's leader."""

    def __init__(
        self,
        client: KubeClient,
        objects: Objects,
        tasks: Tasks,
        requests: Requests,
        clock: Clock,
        *,
        config: ProjectionConfig | None = None,
        events: EventRecorder | None = None,
        namespaces: tuple[str, ...] = (),
        serves: Callable[[str], bool] = lambda namespace: True,
        workforce: Callable[[str, str], Workforce | None] = lambda namespace, name: None,
        schemas: Callable[[str, str], Schemas] = lambda namespace, name: {},
        faults: ObjectFaults | None = None,
    ) -> None:
        """`workforce` and `schemas`: see `World`. `faults` are those of the operator itself: they go over what a
        status says."""
        self._objects = objects
        self._world = World(
            tasks,
            requests,
            now_ms=clock.now_ms,
            monotonic_s=lambda: asyncio.get_running_loop().time(),
            workforce=workforce,
            schemas=schemas,
        )
        self._failing = Failing(faults or ObjectFaults(), objects, events, self.fault_changed)
        self._serves = serves
        self._config = config or ProjectionConfig()
        self._clock = clock
        self._events = events
        bucket = Bucket(self._config.writes_per_s, self._config.burst)
        self._writer = Writer(client, bucket, namespaces=namespaces, timeout_s=self._config.request_timeout_s)
        self._history = History(self._writer, self._failing.unread)
        self._expiry = Expiry(self._writer, objects, clock)
        self._queue: WorkQueue[Key] = WorkQueue(
            self._work,
            name="projection",
            workers=self._config.concurrency,
            weights=WEIGHTS,
            group=self._namespace,
            initial_s=1.0,
            max_s=60.0,
        )
        self._incoming: deque[TaskView] = deque()
        self._checks: dict[str, None] = {}
        """Uids of tasks that something else than a view may have changed."""
        self._arrived = asyncio.Event()
        self._written: dict[Key, tuple[object, Stored]] = {}
        """What was written last, and what the watch knew then: the write comes back by the watch a little later."""
        self._wrote_at: dict[Key, float] = {}
        self.leading = False

    # --- the host's side: ViewSink ---

    def wanted(self) -> int:
        """How many changed tasks can be taken now."""
        if not self.leading or not self._history.listed:
            return 0
        room = self._config.most_pending - len(self._world.views) - len(self._incoming)
        return max(0, min(room, self._config.views_at_once))

    def show(self, views: Views) -> None:
        """Take durable views. Cheap: they are looked at later, a few at a time."""
        if not self.leading:
            return
        self._failing.not_viewed(views.faults)
        self._incoming.extend(views.tasks)
        self._arrived.set()
        self.show_pools(views.pools)

    def show_pools(self, views: Iterable[PoolView]) -> None:
        """Take the figures of pools, which are nobody's facts: they may come at any time."""
        if self.leading:
            for pool in views:
                self._show_pool(pool)

    @property
    def pending(self) -> int:
        """Objects that wait to be written."""
        return len(self._queue)

    @property
    def oldest_s(self) -> float:
        """How long the view has waited to be written that waits the longest."""
        return self._queue.oldest_s

    @property
    def writes(self) -> dict[tuple[str, str], int]:
        """Requests since the process started, by kind and outcome."""
        return self._writer.writes

    # --- the term ---

    def lead(self) -> None:
        """This process leads now: what is already known to differ is written."""
        self.leading = True
        self._world.begin()
        self._history.listed = False
        for seen in self._objects.every():
            task = self._world.tasks.task(seen.uid) if isinstance(seen, SeenTask) else None
            if task is None or task.fault is not None:
                self.changed(seen)
        self._arrived.set()

    def follow(self) -> None:
        """Another process writes now."""
        self.leading = False
        self._queue.clear()
        self._incoming.clear()
        for held in (self._checks, self._written, self._wrote_at):
            held.clear()
        self._world.forget()

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._queue.run(), name="projection-writes")
            group.create_task(self._sort(), name="projection-views")
            group.create_task(self._expiry.run(self._expired, self._config.expiry_interval_s), name="projection-expiry")

    # --- the catalog's side ---

    def changed(self, seen: Seen) -> None:
        """The object, its stored status or its verdict changed, or it is gone."""
        if not self.leading:
            return
        if isinstance(seen, SeenTask):
            self._checks[seen.uid] = None
            self._arrived.set()
        else:
            key = (seen.kind, seen.uid)
            self._queue.add(key, lane_of(seen, self._stored(key, seen)))

    def pool_changed(self, namespace: str, name: str) -> None:
        """Something about the pool's pods changed."""
        pool = self._objects.named(WORKER_POOL, namespace, name)
        if pool is not None:
            self.changed(pool)

    def fault_changed(self, kind: str, namespace: str, name: str) -> None:
        """The operator failed at the object, or no longer does."""
        seen = self._objects.named(KINDS[kind], namespace, name) if kind in KINDS else None
        if self.leading and seen is not None:
            self._queue.add((kind, seen.uid), GENERATIONS)

    def _expired(self, uid: str) -> None:
        if self.leading:
            self._queue.add((EXPIRED, uid), HISTORY)

    # --- views ---

    async def _sort(self) -> None:
        """Look at what came in, a slice at a time, and queue what is to be written."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self.leading and not self._history.listed:
                try:
                    await self._history.load()
                except ApiError as error:
                    _log.warning("the TaskRun objects cannot be listed; next try in 5 s: %s", error)
                    await asyncio.sleep(5)
            while self.leading and (self._incoming or self._checks):
                for _ in range(min(_SLICE, len(self._incoming))):
                    view = self._incoming.popleft()
                    self._failing.look(Layer.VIEWS, view.uid, partial(self._take, view))
                for uid in list(itertools.islice(self._checks, _SLICE)):
                    del self._checks[uid]
                    self._failing.look(Layer.COMPARISON, uid, partial(self._check, uid))
                await asyncio.sleep(0)

    def _take(self, view: TaskView) -> None:
        """A view came: keep it while something of it is to be written."""
        task = self._objects.get(SCHEDULED_TASK, view.uid)
        if task is None:
            return
        if self._events is not None:
            self._events.task_shown(view, self._stored((task.kind, task.uid), task))
        for run in view.runs:
            for uid in self._world.requests.of_run(run.run_id):
                asked = self._objects.get(TASK_RUN, uid)
                if asked is not None and not asked.final:
                    self._world.runs[run.run_id] = run
                    self.changed(asked)
        self._world.views[view.uid] = view
        in_line = self._compare(task)
        if self._history.differs(view, self._asked(view)):
            self._queue.add((VIEWS, view.uid), HISTORY)
        elif in_line:
            del self._world.views[view.uid]

    def _check(self, uid: str) -> None:
        """Something about the task may differ from what is stored."""
        task = self._objects.get(SCHEDULED_TASK, uid)
        if task is None:
            self._world.views.pop(uid, None)
            self._history.forget(uid)
            for key in ((SCHEDULED_TASK.name, uid), (VIEWS, uid)):
                self._queue.discard(key)
                self._forget(key)
        else:
            self._compare(task)

    def _compare(self, seen: SeenTask) -> bool:
        """Queue the task if its status differs from what is stored; True: it does not."""
        key: Key = (seen.kind, seen.uid)
        stored, task = self._stored(key, seen), self._world.tasks.task(seen.uid)
        status = SCHEDULED_TASK.status(seen, self._world, stored)
        if task is None or status is None:
            return True
        status = self._failing.over(seen, status)
        if not changes(seen.kind, status, stored):
            return True
        if SCHEDULED_TASK.is_early(task, self._world, stored):
            self._queue.add_later(key, self._world.settles_in_s, STATUSES)
        elif seen.uid not in self._world.views and task.fault is None:
            if stored.since:  # a task without a status is new: its first view is on its way
                self._queue.add_later(key, _VIEW_COMES_S, GENERATIONS)
        else:
            self._queue.add(key, lane_of(seen, stored, conditions=conditions_differ(status, stored)))
        return False

    def _show_pool(self, view: PoolView) -> None:
        name = (view.namespace, view.name)
        before = self._world.pools.get(name)
        if before == view:
            return
        self._world.pools[name] = view
        pool = self._objects.named(WORKER_POOL, *name)
        if pool is None:
            return
        self._queue.add((pool.kind, pool.uid), STATUSES)
        if before is None or before.handlers != view.handlers or bool(before.workers) != bool(view.workers):
            for uid in self._world.tasks.naming(WORKER_POOL, *name):
                self._checks[uid] = None
            self._arrived.set()

    def _asked(self, view: TaskView) -> frozenset[str]:
        of_run = self._world.requests.of_run
        return frozenset(run.run_id for run in view.runs if any(True for _ in of_run(run.run_id)))

    # --- what is stored ---

    def _stored(self, key: Key, seen: Seen) -> Stored:
        """What the server has: what was written last until the watch has caught up with it, else what the watch saw."""
        written = self._written.get(key)
        if written is not None:
            if written[0] is seen.stored:
                return written[1]
            del self._written[key]
        return seen.stored

    def _forget(self, key: Key) -> None:
        self._written.pop(key, None)
        self._wrote_at.pop(key, None)

    # --- writing ---

    def _namespace(self, key: Key) -> str:
        """Of the object; empty for one that is gone."""
        seen = subject(key, self._objects)
        return seen.namespace if seen is not None else ""

    async def _work(self, key: Key) -> float | None:
        namespace = self._namespace(key)
        if not self.leading or (namespace and not self._serves(namespace)):
            return None  # another release may serve it, and writes this itself
        return await self._failing.work(key, self._write, self._patch)

    async def _write(self, key: Key) -> float | None:
        seen = subject(key, self._objects)
        if seen is None:
            self._forget(key)
            return None
        if key[0] == EXPIRED:
            return await self._expiry.delete(seen.uid)
        if key[0] == VIEWS:
            return await self._write_views(seen.uid)
        return await self._write_status(key, seen)

    async def _write_status(self, key: Key, seen: Seen) -> float | None:
        kind, stored = KINDS[seen.kind], self._stored(key, seen)
        if kind.is_settled(seen):
            self._forget(key)
            if isinstance(seen, SeenRun):
                self._world.runs.pop(seen.run_id, None)
            return None
        view = self._world.views.get(seen.uid)
        status = kind.status(seen, self._world, stored)
        if status is None or isinstance(status, Later):
            return status.again_s if status is not None else None
        status = self._failing.over(seen, status)
        interval_s = kind.interval_s * self._config.interval_factor
        if not conditions_differ(status, stored) and (pause_s := self._pause_s(key, interval_s)):
            return pause_s
        written = await self._patch(seen, status)
        if isinstance(seen, SeenTask):
            self._task_written(seen, view, status, stored, written)
        return None

    def _task_written(
        self, seen: SeenTask, view: TaskView | None, status: dict[str, object], before: Stored, written: bool | None
    ) -> None:
        if written is None:
            self._world.views.pop(seen.uid, None)
        elif view is not None and self._world.views.get(seen.uid) is view:
            self._take(view)
        if written and self._events is not None and not self._failing.at(seen):
            self._events.conditions_written(seen, status, before)

    async def _write_views(self, uid: str) -> float | None:
        view = self._world.views.get(uid)
        if view is None:
            return None
        await self._history.sync(view, self._asked(view))
        if self._world.views.get(uid) is view:
            self._take(view)
        return None

    async def _patch(self, seen: Seen, status: dict[str, object]) -> bool | None:
        """Write what differs. True: something was written; None: the object is gone, or another one has its name."""
        key: Key = (seen.kind, seen.uid)
        stored = self._stored(key, seen)
        status = self._failing.over(seen, status)
        patch = changes(seen.kind, status, stored)
        if not patch:
            return False
        timed = with_transition_times(patch, timestamp(self._clock.now_ms() // 1000 * 1000), stored)
        has_status = any(stored.digests) or bool(stored.since)
        outcome = await self._writer.patch_status(
            seen.kind, seen.namespace, seen.name, seen.uid, timed, has_status=has_status
        )
        if not outcome.ok:
            return None  # the watch will say so
        self._wrote_at[key] = asyncio.get_running_loop().time()
        self._written[key] = (seen.stored, stored.merged(KINDS[seen.kind].sections, timed))
        self._failing.written(seen, status, stored)
        return True

    def _pause_s(self, key: Key, interval_s: float) -> float:
        """Until the object may be written again."""
        now = asyncio.get_running_loop().time()
        return max(0.0, self._wrote_at.get(key, now - interval_s) + interval_s - now)
