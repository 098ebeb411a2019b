"""Dispatches that no worker holds: they wait for their instant, for a worker, or for other runs to end.

A dispatch that is ahead of its instant sleeps on a timer of the boot clock; where the instant is near and a worker is
free, a place at the worker is reserved for it, so that its lease can be durable in time (an early lease). One whose
instant has come waits in its handler's queue.
Invariants: what waits is in one place only (`engine.model.places`); a wait that is over stays over, whatever the
wall clock does: when it ends is worked out once, by the boot clock.
"""

from __future__ import annotations

from collections.abc import Callable

from tickwheel_operator.engine.dispatch.routing import Router
from tickwheel_operator.engine.model.journal import Journal
from tickwheel_operator.engine.model.places import QUEUED, RESERVED, Place
from tickwheel_operator.engine.model.runs import Dispatch, Run
from tickwheel_operator.engine.schedule.jitter import jittered_start_ms
from tickwheel_operator.engine.schedule.scheduler import Scheduler
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.engine.stats import Stats
from tickwheel_operator.engine.wheel import TimingWheel
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import Origin

__all__ = ["Waiting"]


class Waiting:
    """Owns the timers and the places of what waits."""

    def __init__(
        self,
        journal: Journal,
        router: Router,
        scheduler: Scheduler,
        delays: TimingWheel,
        stats: Stats,
        admit: Callable[[Run], bool],
    ) -> None:
        """`delays` runs by the boot clock. `admit` is asked when a delayed run's time has come: false, it waits for
        others, or was dropped."""
        self._journal = journal
        self._router = router
        self._scheduler = scheduler
        self._delays = delays
        self._stats = stats
        self._admit = admit
        self.lead_ms = 0
        """How long before their instant dispatches are leased; 0: at it."""

    def ready(self, dispatch: Dispatch) -> None:
        """The dispatch waits: for its instant on the wheel, or for a worker in its handler's queue."""
        run = dispatch.run
        entry = self._scheduler.entries.get(run.task.uid)
        if entry is None:
            # Nobody can run it until its task is mended: nor need anybody wait for it.
            for other in self._scheduler.overlaps.leave(run, lambda run: self._scheduler.spec(run.task)):
                for blocked in other.dispatches:
                    self.ready(blocked)
            self._router.leave_place(dispatch)
            return
        if run.held:
            self._disarm(dispatch)
            self.block(dispatch)
            return
        if dispatch.place is RESERVED:
            return
        spec, journal = entry.spec, self._journal
        due = dispatch.due_boot_ms
        if due is None:
            start_ms = self.start_ms(dispatch, spec, dispatch.attempts)
            due = dispatch.due_boot_ms = journal.boot_ms + start_ms - journal.now_ms
        if due > journal.boot_ms:
            self._wait_until(dispatch, spec, due)
            return
        if run.delayed:
            self.block(dispatch)  # where it stays, if it must wait for others now
            if not self._admit(run):
                return
        if dispatch.place is not QUEUED:
            dispatch.waits_ms = journal.boot_ms
        self._router.enqueue(self._router.pool(spec.namespace, spec.pool), spec.handler, dispatch)
        timeout_ms = spec.dispatch_timeout_ms
        self._arm(dispatch, None if timeout_ms is None else dispatch.waits_ms + timeout_ms)

    def start_ms(self, dispatch: Dispatch, spec: TaskSpec, before: int) -> int:
        """When an attempt may begin, by the wall clock, that has so many before it: the first one with the jitter."""
        run = dispatch.run
        if not spec.jitter_ms or before or run.origin not in (Origin.SCHEDULE, Origin.COMPLETION):
            return dispatch.ready_ms
        threshold_ms = self._scheduler.misfire_threshold_ms
        return max(dispatch.ready_ms, jittered_start_ms(spec, run.scheduled_ms, run.created_ms, threshold_ms))

    def due(self, dispatch: Dispatch) -> None:
        """Its timer is due: the backoff is over, or nobody took it within the dispatch timeout."""
        dispatch.timer = None
        if dispatch.place is not QUEUED:
            self.ready(dispatch)
        else:
            self._undelivered(dispatch)

    def leased(self, dispatch: Dispatch) -> None:
        """It waits no more: a worker has it."""
        self._disarm(dispatch)

    def drop(self, dispatch: Dispatch) -> None:
        """It has ended: it waits neither for its instant nor for a worker, and nothing wakes it."""
        self._disarm(dispatch)
        self._router.leave_place(dispatch)

    def block(self, dispatch: Dispatch) -> None:
        """It waits for other runs to end, and counts for its pool all the same."""
        spec = self._scheduler.spec(dispatch.run.task)
        self._router.set_aside(dispatch, self._router.pool(spec.namespace, spec.pool), Place.BLOCKED)

    # --- inside ---

    def _wait_until(self, dispatch: Dispatch, spec: TaskSpec, due: int) -> None:
        """Its instant is ahead: lease it early if that is near and a worker is free, else sleep on it."""
        router = self._router
        pool = router.pool(spec.namespace, spec.pool)
        near = due - self._journal.boot_ms <= self.lead_ms
        early = near and not dispatch.run.delayed and dispatch.ready_ms > self._journal.now_ms
        if early and router.reserve(pool, spec.handler, dispatch):
            self._disarm(dispatch)
            return
        self._arm(dispatch, due if near else due - self.lead_ms)
        if early:
            router.expect(pool, spec.handler, dispatch)
        else:
            router.set_aside(dispatch, pool, Place.DELAYED)

    def _undelivered(self, dispatch: Dispatch) -> None:
        spec, now = self._scheduler.spec(dispatch.run.task), self._journal.now_ms
        retry_ms = 0 if dispatch.attempts + 1 > spec.retry.limit else now
        self._stats.attempts_failed[f.FailureReason.UNDELIVERED] += 1
        self._journal.emit(f.Undelivered(dispatch.number, retry_ms))
        if retry_ms:
            # It keeps its place in the queue: only the clock of the next delivery starts.
            dispatch.waits_ms = self._journal.boot_ms
            self.ready(dispatch)

    def _arm(self, dispatch: Dispatch, at_ms: int | None) -> None:
        """Set its timer anew; None: it needs none."""
        self._disarm(dispatch)
        if at_ms is not None:
            dispatch.timer = self._delays.insert(at_ms, dispatch)

    def _disarm(self, dispatch: Dispatch) -> None:
        if dispatch.timer is not None:
            self._delays.cancel(dispatch.timer)
            dispatch.timer = None
