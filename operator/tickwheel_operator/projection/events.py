"""Kubernetes Events for what a person must see: tasks that stall, dead letters, skipped instants, pools that grow.

Events of one object and reason are one Event with a count. They have a token bucket of their own, so that a storm of
failures delays no status. They are Events of the core group, whose count and message may change: those of
events.k8s.io keep their first note. Invariant: the name of an Event follows from what it tells, so that a new leader
that sees the same failure tells it no second time.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from tickwheel_operator import reasons
from tickwheel_operator.clock import Clock
from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.read.views import TaskView
from tickwheel_operator.engine.triggers.instants import timestamp
from tickwheel_operator.kinds.seen import Seen
from tickwheel_operator.kinds.stored import Stored
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.kube.errors import ApiRefused
from tickwheel_operator.projection.bucket import Bucket
from tickwheel_operator.projection.skips import EXPLANATIONS
from tickwheel_operator.projection.writer import Writer
from tickwheel_operator.workqueue import WorkQueue

__all__ = ["EventConfig", "EventRecorder"]

_log = logging.getLogger(__name__)

_CONTROLLER = "tickwheel.io/operator"
_COMPONENT = "tickwheel"
_NOTE_CHARS = 1_024
_RECENT_MS = 600_000
_WINDOW_MS = 3_600_000


class EventConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How many Events are written."""

    writes_per_s: float = 5.0
    """Requests a second for Events, beside those of the projector; 0.1 to 100."""
    burst: int = 20
    """Requests that may go at once after a pause."""
    most_series: int = 2_000
    """Different Events that are remembered for counting; the oldest are forgotten."""
    interval_s: float = 60.0
    """The count of one Event is written at most once in so many seconds."""


class _Series:
    """One Event, however often it happened."""

    __slots__ = ("count", "created", "first_ms", "kind", "last_ms", "name", "namespace", "note", "reason", "regarding",
                 "sent")  # fmt: skip

    def __init__(self, namespace: str, name: str, regarding: Mapping[str, str], kind: str, reason: str) -> None:
        self.namespace = namespace
        self.name = name
        self.regarding = regarding
        self.kind = kind
        self.reason = reason
        self.note = ""
        self.count = 0
        self.sent = 0
        self.created = False
        self.first_ms = 0
        self.last_ms = 0


class EventRecorder:
    """Collects what happened and writes it in its own time."""

    def __init__(self, client: KubeClient, clock: Clock, *, instance: str, config: EventConfig | None = None) -> None:
        """`instance` is this replica's name, such as its pod's."""
        self._config = config or EventConfig()
        self._clock = clock
        self._instance = instance[:128]
        self._writer = Writer(client, Bucket(self._config.writes_per_s, self._config.burst))
        self._queue: WorkQueue[str] = WorkQueue(
            self._write, name="events", workers=2, group=self._namespace, initial_s=5.0, max_s=300.0
        )
        self._series: dict[str, _Series] = {}
        self._by_namespace: dict[str, dict[str, None]] = {}
        """What `_series` has of each namespace, the oldest first."""
        self._shown: dict[str, tuple[Mapping[str, int], int]] = {}
        """By task: the counters of skipped instants, and when the last failed run ended, as last shown."""

    @property
    def writes(self) -> dict[tuple[str, str], int]:
        """Requests since the process started, by kind and outcome."""
        return self._writer.writes

    async def run(self) -> None:
        """Write until cancelled."""
        await self._queue.run()

    # --- what happens ---

    def leading(self, *, lease_namespace: str, lease_name: str, epoch: int) -> None:
        """This replica leads now. (And what it has shown is another leader's past.)"""
        self._shown.clear()
        note = f"{self._instance} leads since epoch {epoch}"
        self._record(_lease(lease_namespace, lease_name), "Normal", reasons.LEADER_ELECTED, note, identity=str(epoch))

    def ledger_lost(self, *, lease_namespace: str, lease_name: str, why: str) -> None:
        """The ledger knows less than the statuses of tasks."""
        self._record(_lease(lease_namespace, lease_name), "Warning", reasons.LEDGER_LOST, why)

    def task_recovered(self, uid: str, namespace: str, name: str) -> None:
        """The ledger did not know what the task's status says."""
        note = (
            "the ledger did not know this task's earlier runs, and goes on from its status: what status.settledTime "
            "covers does not run again; idempotency keys and the history of runs are gone"
        )
        self._record(_task(uid, namespace, name), "Warning", reasons.LEDGER_LOST, note)

    def conditions_written(self, seen: Seen, status: Mapping[str, Any], before: Stored) -> None:
        """The status of a task was written."""
        regarding = _task(seen.uid, seen.namespace, seen.name)
        for condition in status["conditions"]:
            if condition["type"] != "Stalled":
                continue
            told = (before.stalled, before.generation)
            if condition["status"] == "True" and told != (condition["reason"], status["observedGeneration"]):
                self._record(regarding, "Warning", condition["reason"], condition["message"])
            elif condition["status"] == "False" and before.stalled:
                self._record(regarding, "Normal", reasons.ARMED, "what stalled the task is mended")

    def served_by_another(self, namespace: str, message: str) -> None:
        """Another release serves a namespace that this one sees too."""
        regarding = {"apiVersion": "v1", "kind": "ConfigMap", "namespace": namespace, "name": "tickwheel-owner"}
        self._record(regarding, "Warning", reasons.SERVED_BY_ANOTHER, message, identity=self._instance)

    def pool_scaled(self, uid: str, namespace: str, name: str, before: int, after: int, reason: str) -> None:
        """Autoscaling asks for another number of workers."""
        regarding = _pool(uid, namespace, name)
        note = f"from {before} to {after} {'worker' if after == 1 else 'workers'}: {reason}"
        self._record(regarding, "Normal", reasons.SCALED_UP if after > before else reasons.SCALED_DOWN, note)

    def object_failed(self, seen: Seen, reason: str, note: str) -> None:
        """The operator itself fails at an object."""
        regarding = {
            "apiVersion": "tickwheel.io/v1alpha1", "kind": seen.kind, "namespace": seen.namespace, "name": seen.name,
            "uid": seen.uid,
        }  # fmt: skip
        self._record(regarding, "Warning", reason, note)

    def pool_stalled(self, uid: str, namespace: str, name: str, reason: str, message: str) -> None:
        """A pool does not get on by itself."""
        self._record(_pool(uid, namespace, name), "Warning", reason, message)

    def pool_settled(self, uid: str, namespace: str, name: str) -> None:
        """A pool that stalled gets on."""
        self._record(_pool(uid, namespace, name), "Normal", reasons.SETTLED, "what stalled the pool is over")

    def task_shown(self, view: TaskView, before: Stored) -> None:
        """A durable picture of a task came. `before` is the status that people see now: a new leader tells of what the
        last one did not come to tell, such as what was missed while nobody led."""
        regarding = _task(view.uid, view.namespace, view.name)
        shown = self._shown.get(view.uid)
        skipped, told_ms = shown if shown is not None else (dict(before.skips), self._clock.now_ms() - _RECENT_MS)
        last_ms = told_ms
        for run in view.runs:
            if run.state is RunState.FAILED and run.ended_ms > told_ms:
                last_ms = max(last_ms, run.ended_ms)
                note = f"run {run.name} failed after {run.attempts} attempts: {run.error_type}: {run.message}"
                self._record(regarding, "Warning", reasons.RUN_FAILED, note)
        for reason, count, until_ms in view.skips:
            if (more := count - skipped.get(reason, 0)) > 0:
                self._instants_skipped(regarding, reason, count, until_ms, more)
        self._shown[view.uid] = ({reason: count for reason, count, _ in view.skips}, last_ms)

    def _instants_skipped(
        self, regarding: Mapping[str, str], reason: str, count: int, until_ms: int, more: int
    ) -> None:
        explained = EXPLANATIONS[reason]
        instants = "instant" if count == 1 else "instants"
        note = (
            f"{reason}: {count} {instants} since the task was created, the latest {timestamp(until_ms)}, made no run: "
            f"{explained.why}. To change it: {explained.mend}"
        )
        self._record(regarding, explained.kind, reasons.INSTANTS_SKIPPED, note, series=reason, times=more)

    # --- inside ---

    def _record(
        self,
        regarding: Mapping[str, str],
        kind: str,
        reason: str,
        note: str,
        *,
        identity: str = "",
        series: str = "",
        times: int = 1,
    ) -> None:
        """`identity` tells what happens once, `series` what of one reason is counted by itself."""
        now = self._clock.now_ms()
        # An Event lives an hour: what happens later is a new one.
        identity = identity or f"{series}{now // _WINDOW_MS}"
        told = f"{regarding.get('uid', regarding['name'])}/{reason}/{identity}"
        event = self._series.get(told)
        is_new = event is None
        if event is None:
            name = f"{regarding['name'][:200]}.{hashlib.sha256(told.encode()).hexdigest()[:16]}"
            event = self._series[told] = _Series(regarding["namespace"], name, regarding, kind, reason)
            self._by_namespace.setdefault(event.namespace, {})[told] = None
            if len(self._series) > self._config.most_series:
                self._forget_one()
        event.count += times
        event.note = note[:_NOTE_CHARS]
        event.first_ms = event.first_ms or now
        event.last_ms = now
        if is_new:
            self._queue.add(told)
        else:
            self._queue.add_later(told, self._config.interval_s)

    def _forget_one(self) -> None:
        """The oldest of the namespace that has the most: nobody's storm takes another's Events away."""
        most = max(self._by_namespace.values(), key=len)
        oldest = next(iter(most))
        del most[oldest], self._series[oldest]
        self._queue.discard(oldest)

    def _namespace(self, told: str) -> str:
        series = self._series.get(told)
        return series.namespace if series is not None else ""

    async def _write(self, told: str) -> float | None:
        series = self._series.get(told)
        if series is None or series.count == series.sent:
            return None
        count = series.count
        try:
            again_s = await self._patch(series) if series.created else await self._create(series)
        except ApiRefused as error:
            if not error.for_good:
                raise
            # The same content would be refused again: the next time that it happens, it has another.
            _log.warning("an Event is given up: %s", error)
            again_s = None
        if again_s is not None:
            return again_s
        series.sent = count
        return None if series.count == count else self._config.interval_s

    async def _create(self, series: _Series) -> float | None:
        body = {
            "metadata": {"name": series.name, "namespace": series.namespace},
            "involvedObject": dict(series.regarding),
            "reason": series.reason,
            "message": series.note,
            "type": series.kind,
            "source": {"component": _COMPONENT},
            "reportingComponent": _CONTROLLER,
            "reportingInstance": self._instance,
            "firstTimestamp": _second(series.first_ms),
            "lastTimestamp": _second(series.last_ms),
            "count": series.count,
        }
        # One that exists was told before, by this leader or the last one.
        await self._writer.create_event(series.namespace, body)
        series.created = True
        return None

    async def _patch(self, series: _Series) -> float | None:
        patch = {"count": series.count, "lastTimestamp": _second(series.last_ms), "message": series.note}
        if (await self._writer.patch_event(series.namespace, series.name, patch)).ok:
            return None
        series.created = False  # it has expired
        return self._config.interval_s


def _task(uid: str, namespace: str, name: str) -> dict[str, str]:
    return {
        "apiVersion": "tickwheel.io/v1alpha1", "kind": "ScheduledTask", "namespace": namespace, "name": name,
        "uid": uid,
    }  # fmt: skip


def _lease(namespace: str, name: str) -> dict[str, str]:
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "namespace": namespace, "name": name}


def _second(instant_ms: int) -> str:
    """Kubernetes' Time, of whole seconds."""
    return timestamp(instant_ms // 1000 * 1000)


def _pool(uid: str, namespace: str, name: str) -> dict[str, str]:
    return {
        "apiVersion": "tickwheel.io/v1alpha1", "kind": "WorkerPool", "namespace": namespace, "name": name, "uid": uid,
    }  # fmt: skip
