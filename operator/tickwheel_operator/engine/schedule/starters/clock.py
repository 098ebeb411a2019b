"""Tasks that run by the clock: those whose triggers have equal keys share one timer, a `Group`.

What is due for many tasks at once is done a thousand at a time, so that others get their turn, and what was decided is
on its way meanwhile: the instant of a group is a `Burst` then. All of it is by the wall clock as it is: where that was
set back, watermarks keep what was settled, and new tasks have their instants in time.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from tickwheel_operator.engine.model.journal import Journal
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.schedule.groups import AT_ONCE, Burst, Entry, Group
from tickwheel_operator.engine.schedule.overlap import Verdict
from tickwheel_operator.engine.schedule.starters.starter import Starter
from tickwheel_operator.engine.triggers import Trigger, looked_until
from tickwheel_operator.engine.wheel import TimingWheel

if TYPE_CHECKING:
    from tickwheel_operator.engine.schedule.scheduler import Scheduler

__all__ = ["ClockStarter"]

_TASKS_PER_MS = 40
"""How fast runs are made and leased: the more fire together, the earlier it begins."""
_LONGEST_BURST_MS = 750


class ClockStarter(Starter):
    """Of `ByClock`."""

    def __init__(self, journal: Journal, state: State, scheduler: Scheduler, wheel: TimingWheel) -> None:
        """`wheel` runs by the wall clock."""
        self._journal = journal
        self._state = state
        self._scheduler = scheduler
        self._wheel = wheel
        self._groups: dict[Hashable, Group] = {}
        self._bursts: dict[Group, Burst] = {}
        self._noticed_ms: int | None = None
        """Since when more is due than was fired. What was due by then is no misfire, however long the rest takes."""

    # --- arming ---

    def join(self, entry: Entry) -> None:
        trigger, now = entry.spec.source.trigger, self._journal.wall_ms
        if entry.spec.suspend or trigger is None:
            return
        # From now on, where a leader with a faster clock has settled more: others may share the trigger.
        since = min(entry.watermark_ms, now)
        following = trigger.next_after(since)
        if following is None and (looked := looked_until(trigger, since)) is not None and looked < now:
            following = looked  # the search gave up there, and what comes after may be overdue
        if following is not None and following <= now:
            self._scheduler.overdue.add([entry])
            following = trigger.next_after(now)
        self._join_group(entry, trigger, following)

    def leave(self, entry: Entry) -> None:
        group, entry.group = entry.group, None
        if group is None:
            return
        group.remove(entry)
        if not group.size:
            self._wheel.cancel(group)
            self._bursts.pop(group, None)
            del self._groups[group.trigger.key()]

    def settle(self, entry: Entry, nothing_until_ms: int) -> None:
        trigger = entry.spec.trigger
        if trigger is not None:
            self._scheduler.overdue.settle(entry, trigger, nothing_until_ms)
            self._wake_for(entry)

    def next_ms(self, entry: Entry) -> int | None:
        return None if entry.group is None else entry.group.next_ms

    def release(self) -> None:
        """Runs are made again: sleep on what comes next."""
        for group in self._groups.values():
            if not group.armed:
                self._sleep(group, group.trigger.next_after(self._journal.wall_ms))

    # --- firing ---

    def pass_time(self) -> None:
        """Fire what is due, as much as one step may; the host comes again for the rest."""
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

    def fire(self, group: Group) -> None:
        """The group's timer is due: at its instant, or the lead before."""
        if group.looks:
            self._look_on(group)
            return
        instant, now = group.due_ms, self._journal.wall_ms
        burst = self._bursts.pop(group, None)
        if self._scheduler.held:
            self._scheduler.overdue.add(group.entries, nothing_until_ms=instant - 1)
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
            if seen - instant > self._scheduler.misfire_threshold_ms or (following is not None and following <= now):
                self._scheduler.overdue.add(group.entries, nothing_until_ms=instant - 1)
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
            self._scheduler.overdue.add(group.entries, nothing_until_ms=group.at_ms)  # woken late
        self._sleep(group, group.trigger.next_after(now))

    def _fire_burst(self, group: Group, instant: int, burst: Burst) -> None:
        """It began in time, so that it is no misfire when the last of a hundred thousand have waited for seconds."""
        # While they waited, some may have been edited, or come to be overdue.
        overdue = self._scheduler.overdue.entries
        taken = [e for e in burst.take() if e.group is group and e.watermark_ms < instant and e not in overdue]
        self._fire_due(group, instant, taken)
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
                self._scheduler.overdue.settle(entry, group.trigger)
            if late:
                entries = [e for e in entries if e.watermark_ms < instant]
        self._scheduler.fire_at(instant, entries)

    def _fire_ahead(self, group: Group, instant: int, burst: Burst | None) -> None:
        """Make the runs that nothing can stop any more, so that they are durable, and leased, when their instant comes.
        The others are decided then."""
        if burst is None:
            entries = self._due(group, instant)
            burst = Burst(entries, ahead=True)
            burst.undecided = bool(self._scheduler.overdue.entries)
        taken = burst.take()
        sure = [
            e
            for e in taken
            if self._scheduler.overlaps.verdict(e.spec, b"") is Verdict.START
            and e.group is group
            and e.watermark_ms < instant
            and e not in self._scheduler.overdue.entries
        ]
        burst.undecided |= len(sure) < len(taken)
        self._scheduler.fire_at(instant, sure)
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
        overdue = self._scheduler.overdue.entries
        return [e for e in entries if e not in overdue] if overdue else entries

    # --- timers ---

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
        elif self._scheduler.lead_ms and group.size % _TASKS_PER_MS == 0:
            self._sleep(group, until_ms)  # the more they are, the earlier

    def _wake_for(self, entry: Entry) -> None:
        """The task was settled. Where the wall clock was set back while it waited for that, what it is to fire then may
        lie before the instant that its group sleeps until."""
        group = entry.group
        if group is None or self._journal.wall_ms >= self._journal.now_ms:
            return
        following, until_ms = group.trigger.next_after(entry.watermark_ms), group.next_ms
        if following is not None and (until_ms is None or following < until_ms):
            self._bursts.pop(group, None)
            self._sleep(group, following)

    def _sleep(self, group: Group, until_ms: int | None) -> None:
        if until_ms is None:
            # It may have fired ahead of an instant that is still to come.
            since_ms = self._journal.wall_ms if group.looks else max(self._journal.wall_ms, group.due_ms)
            if (looked := looked_until(group.trigger, since_ms)) is not None:
                group.look_on(self._wheel, looked)
                return
        lead_ms = self._scheduler.lead_ms
        if lead_ms:
            lead_ms += min(group.size // _TASKS_PER_MS, _LONGEST_BURST_MS)
        group.sleep(self._wheel, until_ms, lead_ms)
