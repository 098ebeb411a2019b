"""What the catalog keeps of each object: as it was seen last, and what was made of it."""

from __future__ import annotations

from typing import NamedTuple

from tickwheel_operator.controllers.observe import Fault, ObservedCalendar, ObservedPool, ObservedTask
from tickwheel_operator.engine.spec import TaskSpec
from tickwheel_operator.engine.triggers.calendar import CalendarDates

__all__ = ["Bound", "CalendarEntry", "Dates", "PoolEntry", "TaskEntry"]

Dates = tuple[CalendarDates | None, ...]
"""Of the calendars that a spec names, in its order; None: there is no such calendar, or it is stalled."""


class Bound(NamedTuple):
    """A task's spec with the dates of its calendars in it."""

    of: TaskSpec
    dates: Dates
    spec: TaskSpec | None
    fault: Fault | None
    """Why there is no spec."""


class TaskEntry:
    """A ScheduledTask that exists."""

    __slots__ = ("bound", "fault", "posted", "seen")

    def __init__(self, seen: ObservedTask) -> None:
        self.seen = seen
        self.fault: Fault | None = None
        """Why it is not armed; None: it is."""
        self.bound: Bound | None = None
        """None: it honours no calendars."""
        self.posted: tuple[int, bool, Dates] | None = None
        """Generation, armed, and the dates of its calendars, as the leading engine was last told."""

    @property
    def spec(self) -> TaskSpec | None:
        """As the engine is to have it; None: it is not armed."""
        if self.fault is not None or self.seen.deleting:
            return None
        return self.seen.spec if self.bound is None else self.bound.spec


class PoolEntry:
    """A WorkerPool that exists."""

    __slots__ = ("seen",)

    def __init__(self, seen: ObservedPool) -> None:
        self.seen = seen


class CalendarEntry:
    """A Calendar that exists."""

    __slots__ = ("seen",)

    def __init__(self, seen: ObservedCalendar) -> None:
        self.seen = seen
