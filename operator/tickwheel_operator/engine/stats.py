"""Counters and histograms of one engine, plain enough for the hot path; `projection.metrics` exports them.

They describe what this leader did and start at zero with it. They are no facts and nothing is decided by them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.ledger.facts import FailureReason, SkipReason

__all__ = ["LATENCY_BUCKETS_MS", "OTHERS", "Histogram", "PoolStats", "Stats", "TaskStats"]

OTHERS = ("_other", "_other")
"""Stands for all pools beyond the bound, as namespace and name."""
_LEFT_OUT = 10_000
"""Tasks beyond the bound that are counted as such."""

LATENCY_BUCKETS_MS = (
    1,
    2,
    3,
    5,
    8,
    12,
    20,
    35,
    60,
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    15_000,
    60_000,
    600_000,
)
"""Upper bounds; observations are whole milliseconds."""


class Histogram:
    """Counts per bucket, the last one being for all above."""

    __slots__ = ("counts", "total_ms")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BUCKETS_MS) + 1)
        self.total_ms = 0

    def observe(self, value_ms: int, times: int = 1) -> None:
        self.counts[bisect_left(LATENCY_BUCKETS_MS, value_ms)] += times
        self.total_ms += value_ms * times

    @property
    def count(self) -> int:
        return sum(self.counts)


class PoolStats:
    """The runs of one pool."""

    __slots__ = ("ended", "last_success_ms", "lateness")

    def __init__(self) -> None:
        self.lateness = Histogram()
        """Fire instant minus scheduled instant, of each run that the schedule made."""
        self.ended: dict[RunState, int] = {}
        self.last_success_ms = 0
        """When a run last succeeded, also under leaders before; 0: none did."""


class TaskStats:
    """The runs of one task that asked for metrics of its own."""

    __slots__ = ("ended", "last_success_ms", "lateness_ms", "namespace", "task")

    def __init__(self, namespace: str, task: str) -> None:
        self.namespace = namespace
        self.task = task
        self.ended: dict[RunState, int] = {}
        self.last_success_ms = 0
        self.lateness_ms: int | None = None
        """Of its latest run by schedule; None: this leader made none."""


class Stats:
    """What one engine has done since it began to lead."""

    def __init__(self, *, most_pools: int = 200, most_tasks: int = 100) -> None:
        """Pools beyond `most_pools` are counted together (`OTHERS`); tasks beyond `most_tasks` not at all."""
        self._most_pools = most_pools
        self._most_tasks = most_tasks
        self.by_pool: dict[tuple[str, str], PoolStats] = {}
        self.by_task: dict[str, TaskStats] = {}
        """By uid: of tasks with `spec.taskMetrics`."""
        self.tasks_left_out: dict[str, None] = {}
        """Uids of tasks with `spec.taskMetrics` for which there was no room, 10,000 at most."""
        self.dispatch_latency = Histogram()
        """Of each lease: from the instant at which its dispatch was ready (made, or its backoff over)."""
        self.attempt_duration = Histogram()
        """From lease to the worker's report."""
        self.runs_created = 0
        self.runs_ended: dict[RunState, int] = {}
        self.attempts_failed = dict.fromkeys(FailureReason, 0)
        self.instants_skipped = dict.fromkeys(SkipReason, 0)
        self.leases = 0
        self.early_leases = 0
        """Of these, before their instant."""
        self.fenced = 0
        """Reports of attempts that were not open any more."""

    def known(self, spec: TaskSpec, last_success_ms: int) -> None:
        """The task exists, and last succeeded then; 0: never, as far as is remembered."""
        of_pool = self.of_pool(spec.namespace, spec.pool)
        of_pool.last_success_ms = max(of_pool.last_success_ms, last_success_ms)
        if not spec.task_metrics:
            self.gone(spec.uid)
        elif spec.uid in self.by_task or len(self.by_task) < self._most_tasks:
            of_task = self.by_task.setdefault(spec.uid, TaskStats(spec.namespace, spec.name))
            of_task.last_success_ms = max(of_task.last_success_ms, last_success_ms)
            self.tasks_left_out.pop(spec.uid, None)
        elif len(self.tasks_left_out) < _LEFT_OUT:
            self.tasks_left_out[spec.uid] = None

    def gone(self, uid: str) -> None:
        """The task has no metrics of its own any more."""
        self.by_task.pop(uid, None)
        self.tasks_left_out.pop(uid, None)

    def of_pool(self, namespace: str, pool: str) -> PoolStats:
        key = (namespace, pool)
        found = self.by_pool.get(key)
        if found is None:
            if len(self.by_pool) >= self._most_pools:
                key = OTHERS
            found = self.by_pool.setdefault(key, PoolStats())
        return found

    def fired(self, lateness_ms: int, specs: Sequence[TaskSpec]) -> None:
        """Runs of these tasks were made by their schedule."""
        late = max(0, lateness_ms)
        for (namespace, pool), count in Counter((spec.namespace, spec.pool) for spec in specs).items():
            self.of_pool(namespace, pool).lateness.observe(late, count)
        if self.by_task:
            for spec in specs:
                if spec.task_metrics and (of_task := self.by_task.get(spec.uid)) is not None:
                    of_task.lateness_ms = late
        self.runs_created += len(specs)

    def ended(self, spec: TaskSpec, state: RunState, count: int, now_ms: int) -> None:
        """Runs of the task ended."""
        found: list[PoolStats | TaskStats] = [self.of_pool(spec.namespace, spec.pool)]
        if spec.task_metrics and (of_task := self.by_task.get(spec.uid)) is not None:
            found.append(of_task)
        for one in found:
            one.ended[state] = one.ended.get(state, 0) + count
            if state is RunState.SUCCEEDED:
                one.last_success_ms = now_ms

    def skipped(self, reason: SkipReason, count: int) -> None:
        self.instants_skipped[reason] += count
