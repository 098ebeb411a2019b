"""The projector: shows people what the engine knows, at a bounded rate, and writes nothing that is already so.

It is the host's `ViewSink`. Views coalesce per task: what is written is what holds when its turn comes; `lanes` says
whose turn it is. Only the leader writes (`lead`, `follow`). Invariants: at most `writes_per_s` requests a second; one
slow or failing object delays no other; an object whose stored status says the same is not written.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from tickwheel_operator.clock import Clock
from tickwheel_operator.engine.triggers.instants import timestamp
from tickwheel_operator.engine.views import PoolView, RunView, TaskView, Views
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.kube.errors import ApiError
from tickwheel_operator.objectfaults import Layer, ObjectFaults
from tickwheel_operator.projection.bucket import Bucket
from tickwheel_operator.projection.config import ProjectionConfig
from tickwheel_operator.projection.events import EventRecorder
from tickwheel_operator.projection.expiry import Expiry
from tickwheel_operator.projection.failing import Failing
from tickwheel_operator.projection.history import History
from tickwheel_operator.projection.lanes import GENERATIONS, HISTORY, REQUESTS, STATUSES, WEIGHTS, Key, Places
from tickwheel_operator.projection.registered import Schemas
from tickwheel_operator.projection.statuses import (
    ENDED,
    HANDLER_NOT_REGISTERED,
    calendar_status,
    has_ended,
    pool_status,
    request_status,
    run_status,
    task_status,
    unbuilt_status,
)
from tickwheel_operator.projection.stored import NOTHING, Stored
from tickwheel_operator.projection.subjects import Calendar, Catalog, Pool, Requests, Task, Unbuilt, Workforce
from tickwheel_operator.projection.writer import Writer
from tickwheel_operator.projection.writing import changes, conditions_differ, with_transition_times
from tickwheel_operator.workqueue import WorkQueue

__all__ = ["Projector"]

_log = logging.getLogger(__name__)

_SETTLING_S = 30.0
"""After a takeover: the workers call within this time."""
_VIEW_COMES_S = 0.5
"""A task that is armed again is shown by the engine within this time: one write instead of two."""
_SLICE = 20
"""Views that are looked at before the event loop has its turn again: about 2 ms."""


class Projector:
    """Writes statuses and TaskRun objects of one partition's leader."""

    def __init__(
        self,
        client: KubeClient,
        catalog: Catalog,
        requests: Requests,
        clock: Clock,
        *,
        config: ProjectionConfig | None = None,
        events: EventRecorder | None = None,
        namespaces: tuple[str, ...] = (),
        unbuilt: Unbuilt | None = None,
        serves: Callable[[str], bool] = lambda namespace: True,
        workforce: Callable[[str, str], Workforce | None] = lambda namespace, name: None,
        schemas: Callable[[str, str], Schemas] = lambda namespace, name: {},
        faults: ObjectFaults | None = None,
    ) -> None:
        """`workforce` tells of the pods of a pool with a template; None: it has none, or is invalid. `schemas` are what
        a pool's workers registered. `faults` are those of the operator itself, which go over what a status says."""
        self._failing = Failing(faults or ObjectFaults(), catalog, requests, unbuilt, events, self.fault_changed)
        self._unbuilt = unbuilt
        self._serves = serves
        self._workforce = workforce
        self._schemas = schemas
        self._config = config or ProjectionConfig()
        self._catalog = catalog
        self._requests = requests
        self._clock = clock
        self._events = events
        bucket = Bucket(self._config.writes_per_s, self._config.burst)
        self._writer = Writer(client, bucket, namespaces=namespaces, timeout_s=self._config.request_timeout_s)
        self._history = History(self._writer, self._failing.unread)
        self._expiry = Expiry(self._writer, catalog, requests, clock)
        self._places = Places(catalog, requests, unbuilt)
        self._queue: WorkQueue[Key] = WorkQueue(
            self._work,
            name="projection",
            workers=self._config.concurrency,
            weights=WEIGHTS,
            group=self._places.namespace,
            initial_s=1.0,
            max_s=60.0,
        )
        self._incoming: deque[TaskView] = deque()
        self._checks: dict[str, None] = {}
        """Uids of tasks that something else than a view may have changed."""
        self._arrived = asyncio.Event()
        self._views: dict[str, TaskView] = {}
        """The newest view of each task that has work to do."""
        self._runs: dict[str, RunView] = {}
        """The newest view of each run that a user's TaskRun asked for."""
        self._pools: dict[tuple[str, str], PoolView] = {}
        self._written: dict[Key, tuple[object, Stored]] = {}
        """What was written last, and what the watch knew then: the write comes back by the watch a little later."""
        self._wrote_at: dict[Key, float] = {}
        self._led_from = 0.0
        self.leading = False

    # --- the host's side: ViewSink ---

    def wanted(self) -> int:
        """How many changed tasks can be taken now."""
        if not self.leading or not self._history.listed:
            return 0
        room = self._config.most_pending - len(self._views) - len(self._incoming)
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
        self._led_from = asyncio.get_running_loop().time()
        self._history.listed = False
        for task in self._catalog.tasks():
            if task.fault is not None:
                self._checks[task.seen.uid] = None
        for pool in self._catalog.pools():
            self.pool_changed(pool.seen.namespace, pool.seen.name)
        for calendar in self._catalog.calendars():
            self.calendar_changed(calendar.seen.namespace, calendar.seen.name)
        for run in self._requests.entries():
            self.run_changed(run.seen.uid)
        for other in self._unbuilt.objects() if self._unbuilt is not None else ():
            self.unbuilt_changed(other.uid)
        self._arrived.set()

    def follow(self) -> None:
        """Another process writes now."""
        self.leading = False
        self._queue.clear()
        self._incoming.clear()
        for held in (self._checks, self._views, self._runs, self._pools, self._written, self._wrote_at):
            held.clear()

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._queue.run(), name="projection-writes")
            group.create_task(self._sort(), name="projection-views")
            group.create_task(self._expiry.run(self._expired, self._config.expiry_interval_s), name="projection-expiry")

    # --- the catalog's side ---

    def task_changed(self, uid: str) -> None:
        """The object, its stored status or its fault changed, or it is gone."""
        if self.leading:
            self._checks[uid] = None
            self._arrived.set()

    def pool_changed(self, namespace: str, name: str) -> None:
        """The WorkerPool object or its stored status changed."""
        if self.leading:
            self._queue_status(("pool", namespace, name), self._catalog.pool(namespace, name))

    def calendar_changed(self, namespace: str, name: str) -> None:
        """The Calendar object or its stored status changed."""
        if self.leading:
            self._queue_status(("calendar", namespace, name), self._catalog.calendar(namespace, name))

    def run_changed(self, uid: str) -> None:
        """A user's TaskRun object, or the engine's answer to it, changed."""
        if self.leading:
            self._queue.add(("run", uid, ""), REQUESTS)

    def _expired(self, uid: str) -> None:
        if self.leading:
            self._queue.add(("expired", uid, ""), HISTORY)

    def unbuilt_changed(self, uid: str) -> None:
        """An object that this version does nothing with, or its stored status, changed."""
        if self.leading:
            self._queue.add(("unbuilt", uid, ""), GENERATIONS)

    def _queue_status(self, key: Key, found: Pool | Calendar | None) -> None:
        lane = STATUSES
        if found is not None:
            lane = self._places.lane(found.seen.generation, self._stored(key, found.seen.stored))
        self._queue.add(key, lane)

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

    def fault_changed(self, kind: str, namespace: str, name: str) -> None:
        """The operator failed at the object, or no longer does."""
        if self.leading and (key := self._failing.key(kind, namespace, name)) is not None:
            self._queue.add(key, GENERATIONS)

    def _take(self, view: TaskView) -> None:
        """A view came: keep it while something of it is to be written."""
        task = self._catalog.task(view.uid)
        if task is None:
            return
        if self._events is not None:
            self._events.task_shown(view, self._stored(("task", view.uid, ""), task.seen.stored))
        for run in view.runs:
            for uid in self._requests.of_run(run.run_id):
                entry = self._requests.entry(uid)
                if entry is not None and not entry.seen.final:
                    self._runs[run.run_id] = run
                    self._queue.add(("run", uid, ""), REQUESTS)
        self._views[view.uid] = view
        in_line = self._compare(task, view)
        if self._history.differs(view, self._asked(view)):
            self._queue.add(("history", view.uid, ""), HISTORY)
        elif in_line:
            del self._views[view.uid]

    def _check(self, uid: str) -> None:
        """Something about the task may differ from what is stored."""
        task = self._catalog.task(uid)
        if task is None:
            self._forget_task(uid)
        else:
            self._compare(task, self._views.get(uid))

    def _compare(self, task: Task, view: TaskView | None) -> bool:
        """Queue the task if its status differs from what is stored; True: it does not."""
        key: Key = ("task", task.seen.uid, "")
        stored = self._stored(key, task.seen.stored)
        status = self._task_status(task, view, stored)
        if not changes("ScheduledTask", status, stored):
            return True
        if self._is_early(task, stored):
            self._queue.add_later(key, _SETTLING_S, STATUSES)
        elif view is None and task.fault is None:
            if stored.since:  # a task without a status is new: its first view is on its way
                self._queue.add_later(key, _VIEW_COMES_S, GENERATIONS)
        else:
            changed = conditions_differ(status, stored)
            self._queue.add(key, self._places.lane(task.seen.generation, stored, conditions=changed))
        return False

    def _task_status(self, task: Task, view: TaskView | None, stored: Stored) -> dict[str, object]:
        spec = task.seen.spec
        pool = self._pools.get((spec.namespace, spec.pool)) if spec is not None else None
        ended = stored.ready == ENDED
        if view is not None and view.armed and view.generation == task.seen.generation:
            ended = has_ended(task, view, self._clock.now_ms())
        status = task_status(task, view, pool, ended=ended)
        if view is None and task.fault is None:
            del status["nextScheduleTime"]  # only a view knows it
        return self._failing.over("ScheduledTask", task.seen.namespace, task.seen.name, status)

    def _is_early(self, task: Task, stored: Stored) -> bool:
        """A new leader has not heard of the workers yet: a handler that was missing may still be."""
        spec = task.seen.spec
        if task.fault is not None or spec is None or stored.stalled != HANDLER_NOT_REGISTERED:
            return False
        pool = self._pools.get((spec.namespace, spec.pool))
        young = asyncio.get_running_loop().time() - self._led_from < _SETTLING_S
        return young and (pool is None or not pool.workers)

    def _show_pool(self, view: PoolView) -> None:
        key = (view.namespace, view.name)
        before = self._pools.get(key)
        if before == view:
            return
        self._pools[key] = view
        if self._catalog.pool(*key) is None:
            return
        self._queue.add(("pool", *key), STATUSES)
        if before is None or before.handlers != view.handlers or bool(before.workers) != bool(view.workers):
            for uid in self._catalog.tasks_of_pool(*key):
                self._checks[uid] = None
            self._arrived.set()

    def _asked(self, view: TaskView) -> frozenset[str]:
        return frozenset(run.run_id for run in view.runs if any(True for _ in self._requests.of_run(run.run_id)))

    def _forget_task(self, uid: str) -> None:
        self._views.pop(uid, None)
        self._history.forget(uid)
        for kind in ("task", "history"):
            self._queue.discard((kind, uid, ""))
            self._written.pop((kind, uid, ""), None)
            self._wrote_at.pop((kind, uid, ""), None)

    # --- what is stored ---

    def _stored(self, key: Key, seen: object) -> Stored:
        """What the server has: what was written last until the watch has caught up with it, else what the watch saw."""
        written = self._written.get(key)
        if written is not None:
            if written[0] is seen:
                return written[1]
            del self._written[key]
        return seen if isinstance(seen, Stored) else NOTHING

    # --- writing ---

    async def _work(self, key: Key) -> float | None:
        namespace = self._places.namespace(key)
        if not self.leading or (namespace and not self._serves(namespace)):
            return None  # another release may serve it, and writes this itself
        return await self._failing.work(key, self._write, self._patch)

    async def _write(self, key: Key) -> float | None:
        write = {
            "task": self._write_task,
            "pool": self._write_pool,
            "calendar": self._write_calendar,
            "run": self._write_run,
            "unbuilt": self._write_unbuilt,
            "history": self._write_history,
            "expired": self._delete_expired,
        }
        return await write[key[0]](key)

    async def _write_task(self, key: Key) -> float | None:
        uid = key[1]
        task = self._catalog.task(uid)
        if task is None:
            return None
        view = self._views.get(uid)
        stored = self._stored(key, task.seen.stored)
        status = self._task_status(task, view, stored)
        if not conditions_differ(status, stored) and (pause := self._pause(key, self._config.task_interval_s)):
            return pause
        seen = task.seen
        written = await self._patch("ScheduledTask", key, seen.namespace, seen.name, uid, status, seen.stored)
        if written is None:
            self._views.pop(uid, None)
        elif view is not None and self._views.get(uid) is view:
            self._take(view)
        if written and self._events is not None and not self._failing.at("ScheduledTask", seen.namespace, seen.name):
            self._events.conditions_written(task, status, stored)
        return None

    async def _write_pool(self, key: Key) -> float | None:
        pool = self._catalog.pool(key[1], key[2])
        if pool is None:
            self._wrote_at.pop(key, None)
            return None
        view, workforce = self._pools.get((key[1], key[2])), self._workforce(key[1], key[2])
        stored = self._stored(key, pool.seen.stored)
        if pool.seen.fault is None and workforce is not None and (pause := self._pods_unknown(workforce, view, stored)):
            return pause
        status = pool_status(pool, view, workforce, self._schemas(key[1], key[2]))
        if not conditions_differ(status, stored) and (pause := self._pause(key, self._config.pool_interval_s)):
            return pause
        await self._patch("WorkerPool", key, key[1], key[2], pool.seen.uid, status, pool.seen.stored)
        return None

    def _pods_unknown(self, workforce: Workforce, view: PoolView | None, stored: Stored) -> float:
        """Seconds to wait: a new leader first hears of Deployments and workers, and until then says nothing else than
        the last one did."""
        taking = view.workers - view.draining if view is not None else 0
        deployment = workforce.deployment
        young = asyncio.get_running_loop().time() - self._led_from < _SETTLING_S
        known = deployment is not None and (deployment.problem is not None or taking >= deployment.ready)
        return 0.0 if known or not young or (deployment is not None and not stored.since) else 0.5

    async def _write_calendar(self, key: Key) -> float | None:
        calendar = self._catalog.calendar(key[1], key[2])
        if calendar is None:
            self._written.pop(key, None)
            self._wrote_at.pop(key, None)
            return None
        seen = calendar.seen
        await self._patch("Calendar", key, key[1], key[2], seen.uid, calendar_status(calendar), seen.stored)
        return None

    async def _write_run(self, key: Key) -> float | None:
        uid = key[1]
        run = self._requests.entry(uid)
        if run is None or run.seen.final:
            self._written.pop(key, None)
            self._wrote_at.pop(key, None)
            if run is not None:
                self._runs.pop(run.run_id, None)
            return None
        view = self._runs.get(run.run_id)
        if view is not None:
            status = run_status(view, run.seen.generation)
        else:
            of_request = request_status(run)
            if of_request is None:
                return None
            if run.fault is None and (pause := self._pause(key, 5.0, first=True)):
                return pause  # its view may still come, and says more
            status = of_request
        await self._patch("TaskRun", key, run.seen.namespace, run.seen.name, uid, status, run.seen.stored)
        return None

    async def _write_unbuilt(self, key: Key) -> float | None:
        seen = self._unbuilt.object(key[1]) if self._unbuilt is not None else None
        if seen is None:
            self._written.pop(key, None)
            self._wrote_at.pop(key, None)
            return None
        await self._patch(seen.kind, key, seen.namespace, seen.name, seen.uid, unbuilt_status(seen), seen.stored)
        return None

    async def _delete_expired(self, key: Key) -> float | None:
        return await self._expiry.delete(key[1])

    async def _write_history(self, key: Key) -> float | None:
        view = self._views.get(key[1])
        if view is None or self._catalog.task(key[1]) is None:
            return None
        await self._history.sync(view, self._asked(view))
        if self._views.get(key[1]) is view:
            self._take(view)
        return None

    async def _patch(
        self, kind: str, key: Key, namespace: str, name: str, uid: str, status: dict[str, object], seen: object
    ) -> bool | None:
        """Write what differs. True: something was written; None: the object is gone, or another one has its name."""
        stored = self._stored(key, seen)
        status = self._failing.over(kind, namespace, name, status)
        patch = changes(kind, status, stored)
        if not patch:
            return False
        timed = with_transition_times(patch, timestamp(self._clock.now_ms() // 1000 * 1000), stored)
        outcome = await self._writer.patch_status(
            kind, namespace, name, uid, timed, has_status=any(stored.digests) or bool(stored.since)
        )
        if not outcome.ok:
            return None  # the watch will say so
        self._wrote_at[key] = asyncio.get_running_loop().time()
        self._written[key] = (seen, stored.merged(kind, timed))
        self._failing.written(kind, namespace, name, uid, status, stored)
        return True

    def _pause(self, key: Key, interval_s: float, *, first: bool = False) -> float:
        """Seconds until the object may be written again; `first`: counted from when it was first looked at."""
        now = asyncio.get_running_loop().time()
        if first:
            return max(0.0, self._wrote_at.setdefault(key, now) + interval_s - now)
        return max(0.0, self._wrote_at.get(key, now - interval_s) + interval_s - now)
