"""What an edit of its trigger leaves undone of a task: counted, and never fired.

`engine.schedule.scheduler` asks when a schedule has changed: before its eyes, or while nobody led. The new one counts
from the moment in which a leader sees it, but for a `once`, whose instant may have passed.
Invariant: an instant that was due when its trigger was changed was fired before, or is in a count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tickwheel_operator.engine.model.journal import Journal
from tickwheel_operator.engine.model.runs import TaskState
from tickwheel_operator.engine.schedule.misfire import skipped
from tickwheel_operator.engine.sources import source_of
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.engine.triggers import Trigger, once_at
from tickwheel_operator.ledger import facts as f

if TYPE_CHECKING:
    from tickwheel_operator.engine.schedule.groups import Entry
    from tickwheel_operator.engine.schedule.scheduler import Scheduler

__all__ = ["Edits"]


class Edits:
    """Part of the scheduler."""

    def __init__(self, journal: Journal, scheduler: Scheduler) -> None:
        self._journal = journal
        self._scheduler = scheduler

    def seen(self, entry: Entry, before: TaskSpec) -> None:
        """What the trigger before had due and nobody fired is not the new one's."""
        task = self._scheduler.name(entry)
        self._drop(task, before.trigger)
        self._arm(task, entry.spec)

    def unseen(self, task: TaskState, spec: TaskSpec) -> None:
        """The trigger was changed while nobody led. What the old one, of which only the identity is left, had due until
        now is counted: some of it perhaps after the change, which nobody saw. An identity that this release cannot read
        was written by another one, most likely of the same trigger: then nothing is dropped."""
        before = source_of(task.schedule)
        if before is None:
            self._journal.emit(f.Armed(task.number, spec.schedule, task.watermark_ms))
            return
        self._drop(task, before.trigger)
        self._arm(task, spec)

    def before_the_first_fact(self, entry: Entry) -> None:
        """The task was edited before any fact named it, so that its trigger may be another than it was created with:
        what was due since then is counted. The one instant of a `once` is its own, and due."""
        trigger = entry.spec.trigger
        if trigger is None:
            self._scheduler.name(entry, self._journal.wall_ms)
        elif once_at(trigger) is None:
            self._drop(self._scheduler.name(entry), trigger)

    def _arm(self, task: TaskState, spec: TaskSpec) -> None:
        """The new trigger counts from now. But a `once` that has passed is overdue, as in a new task: somebody named
        this instant. It is counted, and never fires, where the task has fired at that instant or a later one."""
        # Never back: the clock of the leader before may have been ahead, and what it fired stays fired.
        settled_ms = max(self._journal.wall_ms, task.watermark_ms)
        at_ms = None if spec.trigger is None else once_at(spec.trigger)
        if at_ms is None or at_ms > settled_ms:
            self._journal.emit(f.Armed(task.number, spec.schedule, settled_ms))
            return
        self._journal.emit(f.Armed(task.number, spec.schedule, at_ms - 1))
        if at_ms <= task.last_scheduled_ms:
            self._drop(task, spec.trigger)

    def _drop(self, task: TaskState, trigger: Trigger | None) -> None:
        now = self._journal.wall_ms
        if trigger is not None and (skip := skipped(trigger, task.watermark_ms, now, f.SkipReason.EDITED)):
            self._scheduler.skip(task, skip.until_ms, skip.count, skip.reason)
