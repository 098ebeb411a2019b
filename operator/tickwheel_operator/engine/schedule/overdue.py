"""Tasks with overdue instants: after downtime, a suspend, a jump of the clock, a held intake. Settled one by one.

`engine.schedule.starters` find them; each is settled in its turn, by its misfire policy, as many in one
step as others can wait for.
Invariant: where what may catch up is more than may wait or run, the latest instants do, and the rest is counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tickwheel_operator.engine.schedule import groups
from tickwheel_operator.engine.schedule.misfire import settle
from tickwheel_operator.engine.schedule.overlap import REASONS
from tickwheel_operator.engine.triggers.instants import NO_INSTANT_MS
from tickwheel_operator.ledger import facts as f

if TYPE_CHECKING:
    from tickwheel_operator.engine.model.journal import Journal
    from tickwheel_operator.engine.model.state import State
    from tickwheel_operator.engine.schedule.groups import Entry
    from tickwheel_operator.engine.schedule.scheduler import Scheduler
    from tickwheel_operator.engine.spec import TaskSpec
    from tickwheel_operator.engine.triggers import Trigger

__all__ = ["Overdue"]


class Overdue:
    """Part of the scheduler."""

    def __init__(self, journal: Journal, state: State, scheduler: Scheduler) -> None:
        self._journal = journal
        self._state = state
        self._scheduler = scheduler
        self.entries: OrderedDict[Entry, int] = OrderedDict()
        """In the order in which they are settled, with up to when there is surely nothing to settle."""

    def add(self, entries: Iterable[Entry], nothing_until_ms: int = NO_INSTANT_MS) -> None:
        """They are overdue: that is settled in their turn, as soon as new runs are made. They slept until
        `nothing_until_ms`, so that there is nothing before it, though the watermark may be a long way back: where
        calendars refuse all between, a count that began there would give up."""
        for entry in entries:
            self.entries.setdefault(entry, nothing_until_ms)

    def go_on(self) -> None:
        """Settle those that are overdue longest, as many as one step may."""
        if self._scheduler.held:
            return
        first = self._state.next_run
        for _ in range(min(groups.AT_ONCE, len(self.entries))):
            self.settle_now(next(iter(self.entries)))
            if self._state.next_run - first >= groups.AT_ONCE:
                return

    def settle_now(self, entry: Entry) -> None:
        """It is the task's turn, if it has overdue instants."""
        if self._scheduler.held or entry not in self.entries:
            return
        nothing_until_ms = self.entries.pop(entry)
        self._scheduler.starters.of(entry.spec.source).settle(entry, nothing_until_ms)

    def settle(self, entry: Entry, trigger: Trigger, nothing_until_ms: int = NO_INSTANT_MS) -> None:
        """Settle what is overdue for one task, by its misfire policy."""
        scheduler, spec = self._scheduler, entry.spec
        threshold_ms = scheduler.misfire_threshold_ms
        since_ms = max(entry.watermark_ms, nothing_until_ms)
        settlement = settle(trigger, since_ms, self._journal.wall_ms, spec.misfire, threshold_ms)
        for skip in settlement.skipped:
            scheduler.skip(scheduler.name(entry), skip.until_ms, skip.count, skip.reason)
        fire = settlement.fire
        room, reason = self._room(spec, len(fire))
        if (surplus := len(fire) - room) > 0:
            scheduler.skip(scheduler.name(entry), fire[surplus - 1], surplus, reason)
            fire = fire[surplus:]
        for instant in fire:
            scheduler.fire_at(instant, [entry])

    def _room(self, spec: TaskSpec, wanted: int) -> tuple[int, f.SkipReason]:
        """How many runs the schedule may make at once, and why no more."""
        backlog = self._scheduler.free_backlog(spec)
        objection = self._scheduler.overlaps.objection(spec, [b""] * min(backlog, wanted))
        return (backlog, f.SkipReason.BACKLOG) if objection is None else (objection[0], REASONS[objection[1]])
