"""From tasks and time to runs: arming, firing and settling what is overdue.

Tasks whose triggers have equal keys share one timer (`Group`), so that a thousand tasks of one cron expression cost
one. Each task has a watermark, up to which its instants are settled; it moves only by facts, so that a new leader
goes on exactly where the last one was. A task that was never fired has no facts at all: its watermark is its
creation, and listing twenty thousand new tasks writes nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from tickwheel_operator.engine.journal import Journal
from tickwheel_operator.engine.messages import TaskApplied, TaskRemoved
from tickwheel_operator.engine.misfire import settle
from tickwheel_operator.engine.routing import Router
from tickwheel_operator.engine.spec import EngineConfig, RetryPolicy, TaskSpec
from tickwheel_operator.engine.state import Run, State, TaskState
from tickwheel_operator.engine.stats import Stats
from tickwheel_operator.engine.triggers import Trigger
from tickwheel_operator.engine.wheel import Timer, TimingWheel
from tickwheel_operator.ledger import facts as f

__all__ = ["Entry", "Group", "Scheduler"]


class Entry:
    """A task of the catalog."""

    __slots__ = ("group", "paused", "spec", "task", "watermark_ms")

    def __init__(self, spec: TaskSpec, task: TaskState | None) -> None:
        self.spec = spec
        self.task = task
        """None until a fact names the task."""
        self.watermark_ms = spec.created_ms
        """Counts only while `task` is None."""
        self.group: Group | None = None
        self.paused = False
        """Its object is invalid now: nothing fires, and what is known of it is kept."""


class Group:
    """The tasks that share one trigger, and their one timer."""

    __slots__ = ("entries", "next_ms", "timer", "trigger")

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self.entries: dict[str, Entry] = {}
        self.next_ms: int | None = None
        self.timer: Timer | None = None


class Scheduler:
    """Owns the catalog of tasks and its timers."""

    def __init__(
        self,
        journal: Journal,
        state: State,
        router: Router,
        wheel: TimingWheel,
        stats: Stats,
        config: EngineConfig,
        on_created: Callable[[Run], None],
    ) -> None:
        self._journal = journal
        self._state = state
        self._router = router
        self._wheel = wheel
        self._stats = stats
        self._config = config
        self._on_created = on_created
        self.entries: dict[str, Entry] = {}
        self.by_name: dict[tuple[str, str], Entry] = {}
        self._groups: dict[Hashable, Group] = {}
        self._kept: set[str] = set()
        """Uids of objects that exist but were never valid while this leader watched."""
        self.synced = False
        self.held = ""
        """Why no new runs are made; empty: they are."""
        self.touched: OrderedDict[str, None] = OrderedDict()
        """Uids of tasks without facts whose picture changed (armed, edited)."""

    # --- the catalog ---

    def apply(self, command: TaskApplied) -> None:
        """Take over a task's spec: at once, and without a burst of past instants."""
        spec = command.spec
        entry = self.entries.get(spec.uid)
        if entry is None:
            entry = Entry(spec, self._state.by_uid.get(spec.uid))
            self.entries[spec.uid] = entry
            self._mark(entry)
            self.by_name[spec.namespace, spec.name] = entry
            if self.synced:
                self._kept.discard(spec.uid)
                self._adopt(entry)
            return
        before, entry.spec = entry.spec, spec
        paused, entry.paused = entry.paused, False
        self.by_name[spec.namespace, spec.name] = entry
        if before.generation == spec.generation and not paused:
            return
        self._mark(entry)
        if not self.synced:
            return
        if before.schedule == spec.schedule and entry.group is not None:
            # Its generation no longer says that the creation is its watermark, so a fact must.
            self.name(entry)
            return
        self._leave_group(entry)
        self._adopt(entry)

    def remove(self, command: TaskRemoved) -> None:
        """The object is gone (`forget`), or became invalid: then what is known of it is kept."""
        uid = command.uid
        entry = self.entries.get(uid)
        if entry is None:
            if not command.forget:
                self._kept.add(uid)
                return
            self._kept.discard(uid)
            task = self._state.by_uid.get(uid)
            if task is not None:
                self._forget(task, "the task was deleted")
            return
        self._leave_group(entry)
        name = (entry.spec.namespace, entry.spec.name)
        if self.by_name.get(name) is entry:
            del self.by_name[name]
        if not command.forget:
            entry.paused = True
            return
        del self.entries[uid]
        self.touched.pop(uid, None)
        if entry.task is not None:
            self._forget(entry.task, "the task was deleted")

    def sync(self) -> None:
        """The catalog is complete: arm every task, and end what the ledger has of tasks that are gone."""
        if self.synced:
            return
        self.synced = True
        for task in list(self._state.by_uid.values()):
            if task.uid not in self.entries and task.uid not in self._kept:
                self._forget(task, "the task was deleted while no leader watched")
        for entry in self.entries.values():
            self._adopt(entry)

    def hold(self, reason: str) -> None:
        """Make no new runs, for this reason; or make them again (empty), and settle what is overdue."""
        released = bool(self.held) and not reason
        self.held = reason
        if not released or not self.synced:
            return
        for group in list(self._groups.values()):
            if group.timer is not None:
                self._wheel.cancel(group.timer)
            for entry in list(group.entries.values()):
                self._settle(entry, group.trigger)
            self._set_timer(group, group.trigger.next_after(self._journal.now_ms))

    def knows(self, task: TaskState) -> bool:
        """Whether the task was valid at some time while this leader watched."""
        return task.uid in self.entries

    def spec(self, task: TaskState) -> TaskSpec:
        """The task's spec; of one whose object is invalid since before this leader led: one that never retries."""
        entry = self.entries.get(task.uid)
        if entry is not None:
            return entry.spec
        return TaskSpec(
            uid=task.uid, namespace=task.namespace, name=task.name, generation=0, created_ms=0, trigger=None,
            pool="", handler="", retry=RetryPolicy(limit=0),
        )  # fmt: skip

    def name(self, entry: Entry) -> TaskState:
        """The task's durable state; a fact names it if none has."""
        if entry.task is None:
            spec = entry.spec
            number = self._state.next_task
            self._journal.emit(
                f.TaskNamed(number, spec.uid, spec.namespace, spec.name, spec.schedule, entry.watermark_ms)
            )
            entry.task = self._state.tasks[number]
            self.touched.pop(spec.uid, None)
        return entry.task

    # --- firing ---

    def fire(self, group: Group) -> None:
        """The group's timer is due."""
        group.timer = None
        instant = group.next_ms
        now = self._journal.now_ms
        if instant is None or self.held:
            return
        following = group.trigger.next_after(instant)
        if now - instant <= self._config.misfire_threshold_ms and (following is None or following > now):
            self._fire_at(instant, [e for e in group.entries.values() if self._watermark(e) < instant])
        else:
            for entry in list(group.entries.values()):
                self._settle(entry, group.trigger)
            following = group.trigger.next_after(now)
        self._set_timer(group, following)

    def _fire_at(self, scheduled_ms: int, entries: list[Entry]) -> None:
        """One run of each task for one instant: one fact for all of them."""
        admitted = []
        for entry in entries:
            spec = entry.spec
            task = entry.task or self.name(entry)
            if self._router.pool(spec.namespace, spec.pool).backlog() >= self._config.max_backlog:
                self._skip(task, scheduled_ms, 1, f.SkipReason.BACKLOG)
            else:
                admitted.append(task.number)
        if not admitted:
            return
        first = self._state.next_run
        self._journal.emit(f.Fired(scheduled_ms, first, admitted))
        self._stats.fired(self._journal.now_ms - scheduled_ms, len(admitted))
        runs = self._state.runs
        for number in range(first, first + len(admitted)):
            self._on_created(runs[number])

    def _settle(self, entry: Entry, trigger: Trigger) -> None:
        """Settle what is overdue for one task, by its misfire policy."""
        if self.held:
            return
        after = self._watermark(entry)
        settlement = settle(trigger, after, self._journal.now_ms, entry.spec.misfire, self._config.misfire_threshold_ms)
        for skip in settlement.skipped:
            self._skip(self.name(entry), skip.until_ms, skip.count, skip.reason)
        for instant in settlement.fire:
            self._fire_at(instant, [entry])

    def _skip(self, task: TaskState, until_ms: int, count: int, reason: f.SkipReason) -> None:
        self._journal.emit(f.Skipped(task.number, until_ms, count, reason))
        self._stats.skipped(reason, count)

    # --- arming ---

    def _adopt(self, entry: Entry) -> None:
        """Bring the task's watermark, its overdue instants and its timer in line with its spec."""
        spec, now = entry.spec, self._journal.now_ms
        if entry.task is None:
            if spec.generation > 1:
                entry.watermark_ms = now
                self.name(entry)
        elif entry.task.schedule != spec.schedule:
            # Never back: the clock of the leader before may have been ahead, and what it fired stays fired.
            self._journal.emit(f.Armed(entry.task.number, spec.schedule, max(now, entry.task.watermark_ms)))
        if spec.suspend or spec.trigger is None:
            return
        self._settle(entry, spec.trigger)
        self._join_group(entry, spec.trigger)

    def _join_group(self, entry: Entry, trigger: Trigger) -> None:
        key = trigger.key()
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(trigger)
        group.entries[entry.spec.uid] = entry
        entry.group = group
        if group.timer is None:
            self._set_timer(group, trigger.next_after(self._journal.now_ms))

    def _leave_group(self, entry: Entry) -> None:
        group, entry.group = entry.group, None
        if group is None:
            return
        group.entries.pop(entry.spec.uid, None)
        if not group.entries:
            if group.timer is not None:
                self._wheel.cancel(group.timer)
            del self._groups[group.trigger.key()]

    def _set_timer(self, group: Group, at_ms: int | None) -> None:
        group.next_ms = at_ms
        group.timer = None if at_ms is None else self._wheel.insert(at_ms, group)

    def _watermark(self, entry: Entry) -> int:
        return entry.watermark_ms if entry.task is None else entry.task.watermark_ms

    def _forget(self, task: TaskState, why: str) -> None:
        for run in list(task.runs.values()):
            self._journal.emit(f.Cancelled(run.number, why))
        self._journal.emit(f.TaskForgotten(task.number))

    def _mark(self, entry: Entry) -> None:
        if entry.task is None:
            self.touched[entry.spec.uid] = None
        else:
            self._state.touched[entry.task] = None
