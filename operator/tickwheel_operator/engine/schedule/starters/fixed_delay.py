"""Tasks whose next run starts a fixed delay after the end of their last one.

Such a task has one instant ahead at most, so it sleeps on a timer of its own; it is measured by the boot clock, and
goes on while a wall clock that was set back catches up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.model.journal import Journal
from tickwheel_operator.engine.model.runs import Run
from tickwheel_operator.engine.schedule.groups import Entry
from tickwheel_operator.engine.schedule.misfire import settle
from tickwheel_operator.engine.schedule.starters.starter import Starter
from tickwheel_operator.engine.sources import FixedDelay
from tickwheel_operator.engine.triggers import OnceTrigger
from tickwheel_operator.engine.triggers.filters import Search
from tickwheel_operator.engine.wheel import Timer, TimingWheel
from tickwheel_operator.ledger.facts import Origin

if TYPE_CHECKING:
    from tickwheel_operator.engine.schedule.scheduler import Scheduler

__all__ = ["Delay", "DelayStarter"]


class Delay:
    """The next instant of a fixed-delay task."""

    __slots__ = ("entry", "instant_ms", "looks", "timer")

    def __init__(self, entry: Entry, instant_ms: int, looks: bool = False) -> None:
        self.entry = entry
        self.instant_ms = instant_ms
        self.looks = looks
        """It is none: calendars refuse so much up to it that the search gave up there, and goes on then."""
        self.timer: Timer | None = None


class DelayStarter(Starter):
    """Of `FixedDelay`."""

    hears_own_ends = True

    def __init__(self, journal: Journal, scheduler: Scheduler, wheel: TimingWheel) -> None:
        """`wheel` runs by the boot clock."""
        self._journal = journal
        self._scheduler = scheduler
        self._wheel = wheel
        self._delays: dict[str, Delay] = {}

    def join(self, entry: Entry) -> None:
        spec = entry.spec
        if (delay := self._next(entry)) is None:
            return
        if self._is_over(delay) and not spec.suspend:
            self._scheduler.overdue.add([entry])
        else:
            self._sleep(delay)

    def leave(self, entry: Entry) -> None:
        delay = self._delays.pop(entry.spec.uid, None)
        if delay is not None and delay.timer is not None:
            self._wheel.cancel(delay.timer)

    def next_ms(self, entry: Entry) -> int | None:
        delay = self._delays.get(entry.spec.uid)
        return None if delay is None or delay.looks else delay.instant_ms

    def ended(self, run: Run, state: RunState) -> None:
        entry = self._scheduler.entries.get(run.task.uid)
        if entry is not None and run.origin is Origin.SCHEDULE:
            self._arm(entry)

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

    def _fire(self, entry: Entry, instant_ms: int) -> None:
        """Make the run of an instant. Where there is no room for it, the next delay counts from now: what has passed
        since then is one instant, not one for each delay that would fit in."""
        reason = self._scheduler.no_room(entry.spec)
        if reason is None:
            self._scheduler.fire_at(instant_ms, [entry])
        else:
            until_ms = max(instant_ms, self._clock_of(instant_ms))
            self._scheduler.skip(self._scheduler.name(entry), until_ms, 1, reason)

    def settle(self, entry: Entry, nothing_until_ms: int) -> None:
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
        delay.timer = self._wheel.insert(self._journal.boot_ms + wait_ms, delay)
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
