"""From tasks and time to runs: the catalog of tasks, and the one place where the runs of schedules are made or skipped.

What starts the runs of a task is its source; each kind of source has a starter (`engine.schedule.starters`), which owns
the timers and asks here for runs. Each task has a watermark, up to which its instants are settled; it moves only by
facts, so that a new leader goes on exactly where the last one was. A task that was never fired has no facts at all: its
watermark is its creation, and listing twenty thousand new tasks writes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from tickwheel_operator.engine.messages import TaskApplied, TaskRemoved
from tickwheel_operator.engine.model.journal import Journal
from tickwheel_operator.engine.model.runs import Run, TaskState
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.schedule.deleted import DeletedTasks
from tickwheel_operator.engine.schedule.edits import Edits
from tickwheel_operator.engine.schedule.groups import Entry, Names
from tickwheel_operator.engine.schedule.overdue import Overdue
from tickwheel_operator.engine.schedule.overlap import REASONS, Overlaps
from tickwheel_operator.engine.schedule.recovery import Recovery
from tickwheel_operator.engine.schedule.starters import Starters
from tickwheel_operator.engine.sources import Source
from tickwheel_operator.engine.spec import EngineConfig, RetryPolicy, TaskSpec
from tickwheel_operator.engine.stats import Stats
from tickwheel_operator.engine.wheel import TimingWheel
from tickwheel_operator.ledger import facts as f

__all__ = ["Scheduler"]


class Pool(Protocol):
    """A pool, as far as schedules ask for it."""

    def unleased(self) -> int:
        """How many runs wait in it, whatever for."""
        ...


class Pools(Protocol):
    """Where runs wait for workers (`engine.dispatch`, which is above)."""

    def pool(self, namespace: str, name: str) -> Pool: ...


class Scheduler:
    """Owns the catalog of tasks and its timers."""

    def __init__(
        self,
        journal: Journal,
        state: State,
        pools: Pools,
        wheel: TimingWheel,
        delays: TimingWheel,
        stats: Stats,
        config: EngineConfig,
        overlaps: Overlaps,
        on_created: Callable[[Run], None],
    ) -> None:
        """`wheel` runs by the wall clock, `delays` by the boot clock."""
        self.overlaps = overlaps
        self._journal = journal
        self._state = state
        self._pools = pools
        self._stats = stats
        self._config = config
        self.misfire_threshold_ms = config.misfire_threshold_ms
        self.created = on_created
        self.entries: dict[str, Entry] = {}
        self.names = Names()
        self._kept: set[str] = set()
        """Uids of tasks whose objects are invalid, or unheard of."""
        self.unheard: set[str] = set()
        """Uids of tasks of which the ledger knows and the catalog does not, since this leader began: they are gone, or
        the watch is late. Their runs are kept until somebody says which."""
        self.overdue = Overdue(journal, state, self)
        self.starters = Starters(journal, state, self, wheel, delays)
        self.deleted = DeletedTasks(journal)
        self._edits = Edits(journal, self)
        self.recovery = Recovery(journal, self, self._edits)
        self.lead_ms = 0
        """How long before their instant runs are made whose start is sure."""
        self.synced = False
        self.held = ""
        """Why no new runs are made; empty: they are."""
        self.touched: deque[str] = deque()
        """Uids of tasks that had no facts when their picture changed (armed, edited), some perhaps twice."""

    # --- the catalog ---

    def apply(self, command: TaskApplied) -> None:
        """Take over a task's spec: at once, and without a burst of past instants."""
        spec = command.spec
        self._kept.discard(spec.uid)
        self.unheard.discard(spec.uid)
        entry = self.entries.get(spec.uid)
        if entry is None:
            entry = Entry(spec, self._state.by_uid.get(spec.uid))
            if entry.task is not None:
                self.deleted.discard(entry.task)
            self.entries[spec.uid] = entry
            self.recovery.note(entry, command.record)
            self.mark(entry)
            self.names.put(entry)
            if self.synced:
                self._adopt(entry)
                if self.overdue.entries:
                    self.overdue.settle_now(entry)
            return
        before = entry.spec
        rearmed = before.schedule != spec.schedule
        # Other dates of its calendars: what passed before is settled by its policy, and nothing is armed anew.
        redated = not rearmed and before.source != spec.source
        if self.synced and (rearmed or before.generation != spec.generation):
            # Its generation no longer says that the creation is its watermark, so a fact must.
            self.name(entry)
        entry.spec = spec
        paused, entry.paused = entry.paused, False
        self.names.put(entry)
        if before.generation == spec.generation and not paused and not rearmed and not redated:
            return
        self.mark(entry)
        if not self.synced:
            return
        if not rearmed and not redated and before.suspend == spec.suspend and not paused:
            self.watch(entry)
            return
        self._leave(entry, before.source)
        if rearmed:
            self._edits.seen(entry, before)
        self._adopt(entry)
        self.overdue.settle_now(entry)

    def pause(self, uid: str) -> None:
        """Make no runs of the task until it is applied again."""
        entry = self.entries.get(uid)
        if entry is not None:
            entry.paused = True

    def remove(self, command: TaskRemoved) -> None:
        """The object is gone (`forget`), or became invalid: then what is known of it is kept."""
        uid = command.uid
        entry = self.entries.get(uid)
        self.unheard.discard(uid)
        if command.forget:
            self._kept.discard(uid)
        else:
            self._kept.add(uid)
        if entry is None:
            if command.forget and (task := self._state.by_uid.get(uid)) is not None:
                self._forget(task, "the task was deleted")
            return
        self._leave(entry, entry.spec.source)
        self.names.drop(entry)
        if not command.forget:
            entry.paused = True
            self.starters.of(entry.spec.source).hear(entry)  # what it lets pass is counted
            return
        del self.entries[uid]
        if entry.task is not None:
            self._forget(entry.task, "the task was deleted")

    def sync(self) -> None:
        """The catalog is complete, as far as its watch has heard: arm every task."""
        if self.synced:
            return
        self.synced = True
        # First of all who follows whom: what is done now may end runs, too.
        for entry in self.entries.values():
            self.starters.of(entry.spec.source).hear(entry)
        for entry in self.entries.values():
            self.watch(entry)
        for entry in self.entries.values():
            if not entry.paused:
                self._adopt(entry)
        for task in self._state.by_uid.values():
            if task.uid not in self.entries:
                task.watched = self.starters.completions.is_followed(task.namespace, task.name)
                if task.uid not in self._kept:
                    self.unheard.add(task.uid)
        self._kept |= self.unheard
        self.overdue.go_on()

    def hold(self, reason: str) -> None:
        """Make no new runs, for this reason; or make them again (empty), and settle what is overdue."""
        released = bool(self.held) and not reason
        self.held = reason
        if not released or not self.synced:
            return
        self.starters.clock.release()
        self.overdue.go_on()

    @property
    def is_behind(self) -> bool:
        """Whether there is more to settle than was settled in this step."""
        return bool(self.overdue.entries) and not self.held

    def is_full(self, spec: TaskSpec) -> bool:
        """Whether as much waits in the task's pool as may."""
        return not self.free_backlog(spec)

    def free_backlog(self, spec: TaskSpec) -> int:
        """How many more runs may wait in the task's pool."""
        return max(0, self._config.max_backlog - self._pools.pool(spec.namespace, spec.pool).unleased())

    def knows(self, task: TaskState) -> bool:
        """Whether the task was valid at some time while this leader watched."""
        return task.uid in self.entries

    def kept(self, namespace: str, name: str) -> TaskState | None:
        """The task of this name whose object is invalid, or unheard of."""
        known = (self._state.by_uid.get(uid) for uid in self._kept)
        return next((t for t in known if t is not None and (t.namespace, t.name) == (namespace, name)), None)

    def spec(self, task: TaskState) -> TaskSpec:
        """The task's spec; of one whose object is invalid or unheard of since before this leader led: one that never
        retries."""
        if (entry := self.entries.get(task.uid)) is not None:
            return entry.spec
        return TaskSpec(
            uid=task.uid, namespace=task.namespace, name=task.name, generation=0, created_ms=0,
            pool="", handler="", retry=RetryPolicy(limit=0),
        )  # fmt: skip

    def name(self, entry: Entry, watermark_ms: int | None = None) -> TaskState:
        """The task's durable state; a fact names it if none has, with this watermark (default: its creation)."""
        if entry.task is None:
            spec = entry.spec
            number = self._state.next_task
            if watermark_ms is None:
                watermark_ms = entry.watermark_ms
            self._journal.emit(f.TaskNamed(number, spec.uid, spec.namespace, spec.name, spec.schedule, watermark_ms))
            entry.task = self._state.tasks[number]
            self.watch(entry)
        return entry.task

    def watch(self, entry: Entry) -> None:
        """Have the ends of its runs told where anybody needs them."""
        if entry.task is not None:
            spec = entry.spec
            entry.task.watched = (
                spec.overlap.max_concurrent is not None
                or self.starters.of(spec.source).hears_own_ends
                or self.starters.completions.is_followed(spec.namespace, spec.name)
            )

    # --- firing ---

    def pass_time(self) -> None:
        """Fire what is due, and settle what is overdue, as much as one step may; the host comes again for the rest."""
        self.starters.clock.pass_time()
        self.overdue.go_on()

    def fire_at(self, scheduled_ms: int, entries: list[Entry]) -> None:
        """One run of each task for one instant: one fact for all of them that nothing can stop."""
        free, limited = [], []
        for entry in entries:
            spec = entry.spec
            task = entry.task or self.name(entry)
            if self.is_full(spec):
                self.skip(task, scheduled_ms, 1, f.SkipReason.BACKLOG)
            elif spec.overlap.max_concurrent is None:
                free.append((task.number, spec))
            else:
                limited.append(entry)
        if free:
            self._make(scheduled_ms, free)
        for entry in limited:
            self._fire_limited(scheduled_ms, entry)

    def no_room(self, spec: TaskSpec) -> f.SkipReason | None:
        """Why no run of the task may be made now, which its schedule asks for; `None`: it may."""
        if self.is_full(spec):
            return f.SkipReason.BACKLOG
        return REASONS.get(self.overlaps.verdict(spec, b""))

    def _fire_limited(self, scheduled_ms: int, entry: Entry) -> None:
        task = self.name(entry)
        reason = REASONS.get(self.overlaps.verdict(entry.spec, b""))
        if reason is None:
            self._make(scheduled_ms, [(task.number, entry.spec)])
        else:
            self.skip(task, scheduled_ms, 1, reason)

    def _make(self, scheduled_ms: int, tasks: list[tuple[int, TaskSpec]]) -> None:
        first = self._state.next_run
        self._journal.emit(f.Fired(scheduled_ms, first, [number for number, _ in tasks]))
        self._stats.fired(self._journal.wall_ms - scheduled_ms, [spec for _, spec in tasks])
        runs = self._state.runs
        for number in range(first, first + len(tasks)):
            self.created(runs[number])

    def skip(self, task: TaskState, until_ms: int, count: int, reason: f.SkipReason) -> None:
        self._journal.emit(f.Skipped(task.number, until_ms, count, reason))
        self._stats.skipped(reason, count)

    # --- arming ---

    def _adopt(self, entry: Entry) -> None:
        """Bring the task's watermark and its timer in line with its spec. What is overdue is settled in its turn."""
        spec = entry.spec
        self.recovery.adopt(entry)
        if entry.task is None and spec.generation > 1:
            self._edits.before_the_first_fact(entry)
        elif entry.task is not None:
            if entry.task.schedule != spec.schedule:
                self._edits.unseen(entry.task, spec)
            self.watch(entry)
        self.starters.of(spec.source).join(entry)

    def _leave(self, entry: Entry, source: Source) -> None:
        """`source` is what it was armed with: it may have another one by now."""
        self.starters.of(source).leave(entry)
        self.overdue.entries.pop(entry, None)

    def _forget(self, task: TaskState, why: str) -> None:
        for run in list(task.runs.values()):
            if run.number in task.runs:
                self._journal.emit(f.Cancelled(run.number, why))
        self.deleted.add(task)

    def mark(self, entry: Entry) -> None:
        if entry.task is None:
            self.touched.append(entry.spec.uid)
        else:
            self._state.touched[entry.task] = None
