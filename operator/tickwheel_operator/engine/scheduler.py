"""From tasks and time to runs: arming, firing and settling what is overdue.

Tasks whose triggers have equal keys share one timer (`Group`), so that a thousand tasks of one cron expression cost
one. Each task has a watermark, up to which its instants are settled; it moves only by facts, so that a new leader
goes on exactly where the last one was. A task that was never fired has no facts at all: its watermark is its
creation, and listing twenty thousand new tasks writes nothing.

What is due for many tasks at once is done a thousand at a time, so that others get their turn, and what was decided is
on its way meanwhile: the instant of a group (`Burst`), and what is overdue after downtime. All of it is by the wall
clock as it is: where that was set back, watermarks keep what was settled, and new tasks have their instants in time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable

from tickwheel_operator.engine.edits import Edits
from tickwheel_operator.engine.following import Following
from tickwheel_operator.engine.groups import AT_ONCE, Burst, Entry, Group, Names
from tickwheel_operator.engine.journal import Journal
from tickwheel_operator.engine.messages import TaskApplied, TaskRemoved
from tickwheel_operator.engine.overdue import Overdue
from tickwheel_operator.engine.overlap import REASONS, Overlaps, Verdict
from tickwheel_operator.engine.recovery import Recovery
from tickwheel_operator.engine.routing import Router
from tickwheel_operator.engine.runs import Run, TaskState
from tickwheel_operator.engine.sources import Completion, FixedDelay
from tickwheel_operator.engine.spec import EngineConfig, RetryPolicy, TaskSpec
from tickwheel_operator.engine.state import State
from tickwheel_operator.engine.stats import Stats
from tickwheel_operator.engine.triggers import Trigger, looked_until
from tickwheel_operator.engine.wheel import TimingWheel
from tickwheel_operator.ledger import facts as f

__all__ = ["Scheduler"]

_TASKS_PER_MS = 40
"""How fast runs are made and leased: the more fire together, the earlier it begins."""
_LONGEST_BURST_MS = 750


class Scheduler:
    """Owns the catalog of tasks and its timers."""

    def __init__(
        self,
        journal: Journal,
        state: State,
        router: Router,
        wheel: TimingWheel,
        delays: TimingWheel,
        stats: Stats,
        config: EngineConfig,
        overlaps: Overlaps,
        on_created: Callable[[Run], None],
    ) -> None:
        """`wheel` runs by the wall clock, `delays` by the boot clock."""
        self.overlaps = overlaps
        self.delays = delays
        self._journal = journal
        self._state = state
        self._router = router
        self._wheel = wheel
        self._stats = stats
        self._config = config
        self.misfire_threshold_ms = config.misfire_threshold_ms
        self.created = on_created
        self.entries: dict[str, Entry] = {}
        self.names = Names()
        self._groups: dict[Hashable, Group] = {}
        self._bursts: dict[Group, Burst] = {}
        self._noticed_ms: int | None = None
        """Since when more is due than was fired. What was due by then is no misfire, however long the rest takes."""
        self._kept: set[str] = set()
        """Uids of tasks whose objects are invalid, or unheard of."""
        self.unheard: set[str] = set()
        """Uids of tasks of which the ledger knows and the catalog does not, since this leader began: they are gone, or
        the watch is late. Their runs are kept until somebody says which."""
        self.overdue = Overdue(journal, state, self)
        self.following = Following(journal, state, self)
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
        self._leave(entry)
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
        self._leave(entry)
        self.names.drop(entry)
        if not command.forget:
            entry.paused = True
            if isinstance(entry.spec.source, Completion):
                self.following.join(entry)  # what it lets pass is counted
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
            if isinstance(entry.spec.source, Completion):
                self.following.join(entry)
        for entry in self.entries.values():
            self.watch(entry)
        for entry in self.entries.values():
            if not entry.paused:
                self._adopt(entry)
        for task in self._state.by_uid.values():
            if task.uid not in self.entries:
                task.watched = self.following.is_followed(task.namespace, task.name)
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
        for group in self._groups.values():
            if not group.armed:
                self._sleep(group, group.trigger.next_after(self._journal.wall_ms))
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
        return max(0, self._config.max_backlog - self._router.pool(spec.namespace, spec.pool).unleased())

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
                or isinstance(spec.source, FixedDelay)
                or self.following.is_followed(spec.namespace, spec.name)
            )

    # --- firing ---

    def pass_time(self) -> None:
        """Fire what is due, and settle what is overdue, as much as one step may; the host comes again for the rest."""
        first, now = self._state.next_run, self._journal.wall_ms
        due = self._wheel.advance(now, limit=AT_ONCE)
        waiting = len(due) == AT_ONCE
        for number, group in enumerate(due, start=1):
            if isinstance(group, Group):  # nothing else is in this wheel
                self.fire(group)
            if self._state.next_run - first >= AT_ONCE and number < len(due):
                for later in due[number:]:
                    self._wheel.arm(later, later.at_ms)
                waiting = True
                break
        if not waiting:
            self._noticed_ms = None
        elif self._noticed_ms is None:
            self._noticed_ms = now
        self.overdue.go_on()

    def fire(self, group: Group) -> None:
        """The group's timer is due: at its instant, or the lead before."""
        if group.looks:
            self._look_on(group)
            return
        instant, now = group.due_ms, self._journal.wall_ms
        burst = self._bursts.pop(group, None)
        if self.held:
            self.overdue.add(group.entries, nothing_until_ms=instant - 1)
        elif now < instant:
            if now < self._journal.now_ms:
                group.sleep(self._wheel, instant, 0)  # by the clock of the facts it may be past: it would be leased
            else:
                self._fire_ahead(group, instant, burst)
        elif burst is not None:
            if burst.ahead:  # now the others, too
                burst = Burst(self._due(group, instant), ahead=False)
            self._fire_burst(group, instant, burst)
        else:
            following = group.trigger.next_after(instant)
            seen = self._noticed_ms if self._noticed_ms is not None and instant <= self._noticed_ms else now
            if seen - instant > self.misfire_threshold_ms or (following is not None and following <= now):
                self.overdue.add(group.entries, nothing_until_ms=instant - 1)
                self._sleep(group, group.trigger.next_after(now))
                return
            entries = self._due(group, instant)
            if len(entries) > AT_ONCE:
                self._fire_burst(group, instant, Burst(entries, ahead=False))
            else:
                self._fire_due(group, instant, entries)
                self._sleep(group, following)

    def _look_on(self, group: Group) -> None:
        """The search for its next instant had given up here: go on."""
        now = self._journal.wall_ms
        if group.trigger.last_at_or_before(now, group.at_ms) is not None:
            self.overdue.add(group.entries, nothing_until_ms=group.at_ms)  # woken late
        self._sleep(group, group.trigger.next_after(now))

    def _fire_burst(self, group: Group, instant: int, burst: Burst) -> None:
        """It began in time, so that it is no misfire when the last of a hundred thousand have waited for seconds."""
        # While they waited, some may have been edited, or come to be overdue.
        taken = (
            e for e in burst.take() if e.group is group and e.watermark_ms < instant and e not in self.overdue.entries
        )
        self._fire_due(group, instant, list(taken))
        if burst:
            self._bursts[group] = burst
            group.sleep(self._wheel, instant, 0)
        else:
            self._sleep(group, group.trigger.next_after(instant))

    def _fire_due(self, group: Group, instant: int, entries: list[Entry]) -> None:
        late_ms = self._journal.wall_ms - instant
        if late_ms:
            late = [e for e in entries if e.spec.misfire.is_too_late(late_ms)]
            for entry in late:
                self.overdue.settle(entry, group.trigger)
            if late:
                entries = [e for e in entries if e.watermark_ms < instant]
        self.fire_at(instant, entries)

    def _fire_ahead(self, group: Group, instant: int, burst: Burst | None) -> None:
        """Make the runs that nothing can stop any more, so that they are durable, and leased, when their instant comes.
        The others are decided then."""
        if burst is None:
            entries = self._due(group, instant)
            burst = Burst(entries, ahead=True)
            burst.undecided = bool(self.overdue.entries)
        taken = burst.take()
        sure = [
            e
            for e in taken
            if self.overlaps.verdict(e.spec, b"") is Verdict.START
            and e.group is group
            and e.watermark_ms < instant
            and e not in self.overdue.entries
        ]
        burst.undecided |= len(sure) < len(taken)
        self.fire_at(instant, sure)
        if burst:
            self._bursts[group] = burst
            group.sleep(self._wheel, instant, instant - self._journal.wall_ms)
        elif burst.undecided:
            group.sleep(self._wheel, instant, 0)
        else:
            self._sleep(group, group.trigger.next_after(instant))

    def _due(self, group: Group, instant: int) -> list[Entry]:
        """Those whose turn it is. Who is overdue settles this instant with the others."""
        entries = [e for e in group.entries if e.watermark_ms < instant]
        return [e for e in entries if e not in self.overdue.entries] if self.overdue.entries else entries

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
        spec, now = entry.spec, self._journal.wall_ms
        self.recovery.adopt(entry)
        if entry.task is None and spec.generation > 1:
            self._edits.before_the_first_fact(entry)
        elif entry.task is not None:
            if entry.task.schedule != spec.schedule:
                self._edits.unseen(entry.task, spec)
            self.watch(entry)
        if spec.source.trigger is None:
            self.following.join(entry)
        if spec.suspend or spec.trigger is None:
            return
        # From now on, where a leader with a faster clock has settled more: others may share the trigger.
        since = min(entry.watermark_ms, now)
        following = spec.trigger.next_after(since)
        if following is None and (looked := looked_until(spec.trigger, since)) is not None and looked < now:
            following = looked  # the search gave up there, and what comes after may be overdue
        if following is not None and following <= now:
            self.overdue.add([entry])
            following = spec.trigger.next_after(now)
        self._join_group(entry, spec.trigger, following)

    def _join_group(self, entry: Entry, trigger: Trigger, following: int | None) -> None:
        """`following` is the trigger's next instant from now on."""
        key = trigger.key()
        group = self._groups.get(key)
        if group is None:
            group = entry.group = self._groups[key] = Group(trigger)
            group.add(entry)
            self._sleep(group, following)
            return
        group.add(entry)
        entry.group = group
        until_ms = group.next_ms
        if until_ms is None or (following is not None and following < until_ms):
            self._bursts.pop(group, None)
            self._sleep(group, following)
        elif (burst := self._bursts.get(group)) is not None:
            burst.undecided = True  # it fires for those who were here when it began
        elif self.lead_ms and group.size % _TASKS_PER_MS == 0:
            self._sleep(group, until_ms)  # the more they are, the earlier

    def wake_for(self, entry: Entry) -> None:
        """The task was settled. Where the wall clock was set back while it waited for that, what it is to fire then may
        lie before the instant that its group sleeps until."""
        group = entry.group
        if group is None or self._journal.wall_ms >= self._journal.now_ms:
            return
        following, until_ms = group.trigger.next_after(entry.watermark_ms), group.next_ms
        if following is not None and (until_ms is None or following < until_ms):
            self._bursts.pop(group, None)
            self._sleep(group, following)

    def _leave(self, entry: Entry) -> None:
        self.following.leave(entry)
        self.overdue.entries.pop(entry, None)
        group, entry.group = entry.group, None
        if group is None:
            return
        group.remove(entry)
        if not group.size:
            self._wheel.cancel(group)
            self._bursts.pop(group, None)
            del self._groups[group.trigger.key()]

    def _sleep(self, group: Group, until_ms: int | None) -> None:
        if until_ms is None:
            # It may have fired ahead of an instant that is still to come.
            since_ms = self._journal.wall_ms if group.looks else max(self._journal.wall_ms, group.due_ms)
            if (looked := looked_until(group.trigger, since_ms)) is not None:
                group.look_on(self._wheel, looked)
                return
        lead_ms = self.lead_ms
        if lead_ms:
            lead_ms += min(group.size // _TASKS_PER_MS, _LONGEST_BURST_MS)
        group.sleep(self._wheel, until_ms, lead_ms)

    def _forget(self, task: TaskState, why: str) -> None:
        for run in list(task.runs.values()):
            if run.number in task.runs:
                self._journal.emit(f.Cancelled(run.number, why))
        self._journal.emit(f.TaskForgotten(task.number))

    def mark(self, entry: Entry) -> None:
        if entry.task is None:
            self.touched.append(entry.spec.uid)
        else:
            self._state.touched[entry.task] = None
