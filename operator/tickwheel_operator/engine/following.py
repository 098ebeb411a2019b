"""Tasks that follow the end of a run: of their own last one (`fixedDelay`), or of another task's (`completion`).

`Scheduler` says which tasks those are, the engine which runs ended. A fixed delay has one instant ahead at most, so it
sleeps on a timer of its own; it is measured by the boot clock, and goes on while a wall clock that was set back catches
up. A completion needs no timer: the run that follows is decided with the end that it follows, and is in the same
segment of the ledger, so that no leader can die between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwheel_operator.engine.journal import Journal
from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.misfire import settle
from tickwheel_operator.engine.overlap import REASONS
from tickwheel_operator.engine.runs import Run
from tickwheel_operator.engine.sources import Completion, FixedDelay, Outcome
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.engine.state import State
from tickwheel_operator.engine.triggers import OnceTrigger
from tickwheel_operator.engine.triggers.filters import Search
from tickwheel_operator.engine.wheel import Timer
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import Origin

if TYPE_CHECKING:
    from tickwheel_operator.engine.groups import Entry
    from tickwheel_operator.engine.scheduler import Scheduler

__all__ = ["Delay", "Following"]

_OUTCOMES = {RunState.SUCCEEDED: Outcome.SUCCEEDED, RunState.FAILED: Outcome.FAILED}


class Delay:
    """The next instant of a fixed-delay task."""

    __slots__ = ("entry", "instant_ms", "looks", "timer")

    def __init__(self, entry: Entry, instant_ms: int, looks: bool = False) -> None:
        self.entry = entry
        self.instant_ms = instant_ms
        self.looks = looks
        """It is none: calendars refuse so much up to it that the search gave up there, and goes on then."""
        self.timer: Timer | None = None


class Following:
    """Who follows whom, and who sleeps on a delay."""

    def __init__(self, journal: Journal, state: State, scheduler: Scheduler) -> None:
        self._journal = journal
        self._state = state
        self._scheduler = scheduler
        self._followers: dict[tuple[str, str], dict[str, Entry]] = {}
        """By the namespace and name of the task that is followed."""
        self._follows: dict[str, tuple[str, str]] = {}
        self._delays: dict[str, Delay] = {}

    # --- the catalog ---

    def join(self, entry: Entry) -> None:
        """The task follows runs from now on."""
        spec = entry.spec
        if isinstance(spec.source, Completion):
            key = (spec.namespace, spec.source.task)
            self._followers.setdefault(key, {})[spec.uid] = entry
            self._follows[spec.uid] = key
            self._watch(key)
        elif (delay := self._next(entry)) is None:
            return
        elif self._is_over(delay) and not spec.suspend:
            self._scheduler.overdue.add([entry])
        else:
            self._sleep(delay)

    def leave(self, entry: Entry) -> None:
        """It does not."""
        spec = entry.spec
        delay = self._delays.pop(spec.uid, None)
        if delay is not None and delay.timer is not None:
            self._scheduler.delays.cancel(delay.timer)
        key = self._follows.pop(spec.uid, None)
        if key is None:
            return
        followers = self._followers[key]
        del followers[spec.uid]
        if not followers:
            del self._followers[key]
            self._watch(key)

    def is_followed(self, namespace: str, name: str) -> bool:
        """Whether a task waits for the ends of this one's runs."""
        return (namespace, name) in self._followers

    def next_ms(self, uid: str) -> int | None:
        """The instant that a fixed-delay task sleeps on."""
        delay = self._delays.get(uid)
        return None if delay is None or delay.looks else delay.instant_ms

    # --- what happened ---

    def ended(self, run: Run, state: RunState) -> None:
        """A run of a watched task has ended."""
        task = run.task
        entry = self._scheduler.entries.get(task.uid)
        if entry is not None and run.origin is Origin.SCHEDULE and isinstance(entry.spec.source, FixedDelay):
            self._arm(entry)
        if run.execution.retroactive:
            return  # what is made up for is no news
        for follower in list(self._followers.get((task.namespace, task.name), {}).values()):
            source = follower.spec.source
            if isinstance(source, Completion) and source.outcome in (Outcome.ANY, _OUTCOMES.get(state)):
                self._follow(follower, run)

    def due(self, delay: Delay) -> None:
        """A fixed delay is over."""
        entry = delay.entry
        self._delays.pop(entry.spec.uid, None)
        if delay.looks:
            self._arm(entry, delay.instant_ms)
            return
        if self._scheduler.held:
            self._scheduler.overdue.add([entry])
            return
        # The wall clock may have been set back meanwhile: the instant is never ahead of it.
        now, watermark = self._journal.now_ms, entry.watermark_ms
        self._fire(entry, max(watermark + 1, min(delay.instant_ms, now)))
        self._arm(entry)

    def _follow(self, entry: Entry, ended: Run) -> None:
        now = self._journal.now_ms
        task = self._scheduler.name(entry)
        reason = self._objection(entry)
        if reason is not None:
            self._scheduler.skip(task, now, 1, reason)
            return
        number = self._state.next_run
        self._journal.emit(f.Requested(number, task.number, now, now, ended.id, Origin.COMPLETION))
        self._scheduler.created(self._state.runs[number])

    def _objection(self, entry: Entry) -> f.SkipReason | None:
        """Why the end of the other's run makes none of this task now."""
        spec = entry.spec
        if entry.paused:
            return f.SkipReason.STALLED
        if spec.suspend:
            return f.SkipReason.SUSPENDED
        admitted = spec.source.filter
        if admitted is not None and not admitted.admits(self._journal.now_ms):
            return f.SkipReason.CALENDAR
        return self._no_room(spec)

    def _no_room(self, spec: TaskSpec) -> f.SkipReason | None:
        if self._scheduler.is_full(spec):
            return f.SkipReason.BACKLOG
        return REASONS.get(self._scheduler.overlaps.verdict(spec, b""))

    # --- fixed delays ---

    def _fire(self, entry: Entry, instant_ms: int) -> None:
        """Make the run of an instant. Where there is no room for it, the next delay counts from now: what has passed
        since then is one instant, not one for each delay that would fit in."""
        reason = self._no_room(entry.spec)
        if reason is None:
            self._scheduler.fire_at(instant_ms, [entry])
        else:
            until_ms = max(instant_ms, self._clock_of(instant_ms))
            self._scheduler.skip(self._scheduler.name(entry), until_ms, 1, reason)

    def settle(self, entry: Entry) -> None:
        """Arm the task; if its instant has passed while nobody could fire it, the misfire policy decides."""
        delay = self._next(entry)
        if delay is None:
            return
        if not self._is_over(delay):
            self._sleep(delay)
            return
        instant, now = delay.instant_ms, self._now(entry)
        once = OnceTrigger(instant)
        settlement = settle(once, instant - 1, now, entry.spec.misfire, self._scheduler.misfire_threshold_ms)
        for skip in settlement.skipped:
            self._scheduler.skip(self._scheduler.name(entry), now, skip.count, skip.reason)
        if settlement.fire:
            self._fire(entry, instant)
        self._arm(entry)

    def _arm(self, entry: Entry, since_ms: int = 0) -> None:
        """Sleep on the next instant (from `since_ms` on), unless a run is open: its end comes first."""
        if (delay := self._next(entry, since_ms)) is not None:
            self._sleep(delay)

    def _sleep(self, delay: Delay) -> None:
        entry, spec = delay.entry, delay.entry.spec
        if spec.suspend or entry.paused or spec.uid in self._delays:
            return
        self._delays[spec.uid] = delay
        wait_ms = max(0, delay.instant_ms - self._now(entry))
        delay.timer = self._scheduler.delays.insert(self._journal.boot_ms + wait_ms, delay)
        self._scheduler.mark(entry)

    def _next(self, entry: Entry, since_ms: int = 0) -> Delay | None:
        """A delay after the later of the last end and of what is settled; None: a run is open, or it is never."""
        source, task = entry.spec.source, entry.task
        if not isinstance(source, FixedDelay):
            return None
        last_ended_ms = 0
        if task is not None:
            if any(run.origin is Origin.SCHEDULE for run in task.runs.values()):
                return None
            last_ended_ms = task.last_ended_ms
        instant = max(last_ended_ms, entry.watermark_ms, since_ms - source.delay_ms) + source.delay_ms
        if source.filter is None:
            return Delay(entry, instant)
        found, until_ms = source.filter.look(instant)
        if found is Search.GAVE_UP and until_ms <= (now := self._now(entry)):
            found, until_ms = source.filter.look(now)  # what lies between was refused, or is past finding
        return None if found is Search.NEVER else Delay(entry, until_ms, looks=found is Search.GAVE_UP)

    def _is_over(self, delay: Delay) -> bool:
        return not delay.looks and delay.instant_ms <= self._now(delay.entry)

    def _now(self, entry: Entry) -> int:
        """By the clock of the instant that the delay counts from."""
        task = entry.task
        return self._clock_of(entry.watermark_ms if task is None else max(task.watermark_ms, task.last_ended_ms))

    def _clock_of(self, instant_ms: int) -> int:
        """By the wall clock; but where it was set back since this instant, by the one that the instant is of."""
        journal = self._journal
        return journal.wall_ms if instant_ms <= journal.wall_ms else journal.now_ms

    # --- inside ---

    def _watch(self, key: tuple[str, str]) -> None:
        followed = self._scheduler.names.get(*key)
        if followed is not None:
            self._scheduler.watch(followed)
        elif (task := self._scheduler.kept(*key)) is not None:
            task.watched = self.is_followed(*key)
