"""Which instants a trigger may have: its window and its calendars, as one immutable value.

`triggers.FilteredTrigger` asks it for every instant, and the engine for the ends of runs that trigger a task. An
answer says how long it stands, so that nobody walks over the instants of an excluded year one by one.
Invariants: `next_admitted` and `previous_admitted` name the nearest instant that `admits` is true of; a search ends
after a bounded number of answers, and what gave up is told from what is never.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache

import msgspec

from .calendar import FOREVER_MS, CalendarDates
from .instants import timestamp

__all__ = ["ANSWERS", "HORIZON_MS", "Budget", "Filter", "GaveUp", "Search"]

HORIZON_MS = 40 * 366 * 86_400_000
"""A search for an admitted instant ends here: forty years, in which every date of every weekday has come."""
ANSWERS = 10_000
"""What one search may cost, in answers of a calendar or a cron expression of it: some tens of milliseconds."""
_LEAST_TURNS = 16


class Search(Enum):
    """What comes of a search for an instant that finds none."""

    NEVER = "never"
    """There is none up to the horizon."""
    GAVE_UP = "gave up"
    """It has used up its budget: there may be one further on."""


class GaveUp(Exception):
    """The budget is used up."""

    def __init__(self, at_ms: int) -> None:
        super().__init__(at_ms)
        self.at_ms = at_ms
        """The instant that was to be asked about next."""


class Budget:
    """How often a filter may yet be asked in one search."""

    __slots__ = ("left",)

    def __init__(self, turns: int) -> None:
        self.left = turns

    def spend(self, at_ms: int) -> None:
        """Take one turn, to ask about this instant. Raises `GaveUp`."""
        if self.left <= 0:
            raise GaveUp(at_ms)
        self.left -= 1


class Filter(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The instants from `not_before_ms` to `not_after_ms`, both included, that the calendars leave."""

    not_before_ms: int | None = None
    not_after_ms: int | None = None
    exclude: tuple[CalendarDates, ...] = ()
    """No instant that is in one of these."""
    include: tuple[CalendarDates, ...] = ()
    """If there are any: only instants that are in at least one of these."""

    def admits(self, instant_ms: int) -> bool:
        """Whether a run may be due at this instant."""
        return self.stands(instant_ms)[0]

    def stands(self, instant_ms: int) -> tuple[bool, int]:
        """Whether the instant is admitted, and until when (exclusive) all instants are as this one, at least."""
        until_ms = FOREVER_MS
        if self.not_before_ms is not None and instant_ms < self.not_before_ms:
            return False, self.not_before_ms
        if self.not_after_ms is not None:
            if instant_ms > self.not_after_ms:
                return False, FOREVER_MS
            until_ms = self.not_after_ms + 1
        for calendar in self.exclude:
            inside, change_ms = calendar.covers(instant_ms)
            if inside:
                return False, change_ms
            until_ms = min(until_ms, change_ms)
        if not self.include:
            return True, until_ms
        answers = [calendar.covers(instant_ms) for calendar in self.include]
        included = [change_ms for inside, change_ms in answers if inside]
        if included:
            return True, min(until_ms, max(included))
        return False, min(change_ms for _, change_ms in answers)

    def turns(self, answers: int = ANSWERS) -> int:
        """How often it may be asked for so many answers: the more calendars and expressions, the less often."""
        calendars = (*self.exclude, *self.include)
        return max(_LEAST_TURNS, answers // max(1, len(calendars) + sum(calendar.crons for calendar in calendars)))

    def next_admitted(self, instant_ms: int) -> int | None:
        """The first instant at or after `instant_ms` that is admitted.

        None: there is none in the next 40 years, or the answer changes too often before it.
        """
        found = self.search(instant_ms)
        return None if isinstance(found, Search) else found

    def search(self, instant_ms: int) -> int | Search:
        """`next_admitted`, or why there is none."""
        return self.look(instant_ms)[0]

    def look(self, instant_ms: int) -> tuple[int | Search, int]:
        """What `search` finds, and from when on it is worth asking again where it gave up: all before is refused."""
        try:
            found = self._first(instant_ms, self.horizon(instant_ms), Budget(self.turns()))
        except GaveUp as gave_up:
            return Search.GAVE_UP, gave_up.at_ms
        return (Search.NEVER, instant_ms) if found is None else (found, found)

    def horizon(self, instant_ms: int) -> int:
        """Where a search from `instant_ms` on ends: 40 years after it, and after the window begins."""
        return max(instant_ms, instant_ms if self.not_before_ms is None else self.not_before_ms) + HORIZON_MS

    def previous_admitted(self, instant_ms: int, after_ms: int, budget: Budget | None = None) -> int | None:
        """The last instant at or before `instant_ms`, but after `after_ms`, that is admitted; None: there is none.

        Raises
        ------
        GaveUp
            The budget is used up.
        """
        budget = budget or Budget(self.turns())
        if instant_ms <= after_ms:
            return None
        budget.spend(instant_ms)
        if self.admits(instant_ms):
            return instant_ms
        # Answers reach forwards only. So go back in growing steps to an instant from which an admitted one is met
        # before `instant_ms`, then halve what lies between: one is met from all up to the last, and from none past it.
        step_ms, unmet_ms = 1_000, instant_ms
        while True:
            probe_ms = max(after_ms + 1, instant_ms - step_ms)
            met_ms = self._first(probe_ms, unmet_ms - 1, budget)
            if met_ms is not None:
                break
            if probe_ms == after_ms + 1:
                return None
            step_ms, unmet_ms = step_ms * 8, probe_ms
        while met_ms + 1 < unmet_ms:
            # All instants up to the end of an answer are as its first: leap there before halving.
            budget.spend(met_ms)
            _, until_ms = self.stands(met_ms)
            met_ms = min(until_ms, unmet_ms) - 1
            if met_ms + 1 >= unmet_ms:
                break
            middle_ms = (met_ms + unmet_ms) // 2
            found_ms = self._first(middle_ms, unmet_ms - 1, budget)
            if found_ms is None:
                unmet_ms = middle_ms
            else:
                met_ms = found_ms
        return met_ms

    def window(self) -> Filter | None:
        """Itself without calendars; None: it has no window."""
        if self.not_before_ms is None and self.not_after_ms is None:
            return None
        return Filter(not_before_ms=self.not_before_ms, not_after_ms=self.not_after_ms)

    def normal(self) -> Filter | None:
        """As `Trigger.normal`: the window, and the calendars without their dates, in order and once each. None: it
        admits all."""
        exclude, include = _named(self.exclude), _named(self.include)
        if not exclude and not include:
            return self.window()
        return msgspec.structs.replace(self, exclude=exclude, include=include)

    def describe(self) -> str:
        """One line for people: the window, and the calendars by name."""
        parts = []
        if self.not_before_ms is not None:
            parts.append(f"not before {timestamp(self.not_before_ms)}")
        if self.not_after_ms is not None:
            parts.append(f"not after {timestamp(self.not_after_ms)}")
        parts += [f"except on {name}" for name in sorted(calendar.name for calendar in self.exclude)]
        if self.include:
            parts.append(f"only on {' or '.join(sorted(calendar.name for calendar in self.include))}")
        return "; ".join(parts)

    def _first(self, instant_ms: int, until_ms: int, budget: Budget) -> int | None:
        """The first admitted instant from `instant_ms` to `until_ms`, both included. Raises `GaveUp`."""
        while True:
            budget.spend(instant_ms)
            admitted, change_ms = self.stands(instant_ms)
            if admitted:
                return instant_ms
            if change_ms > until_ms:
                return None
            instant_ms = change_ms


def _named(calendars: tuple[CalendarDates, ...]) -> tuple[CalendarDates, ...]:
    return _undated(tuple(sorted({calendar.name for calendar in calendars}))) if calendars else ()


@lru_cache(maxsize=1_024)
def _undated(names: tuple[str, ...]) -> tuple[CalendarDates, ...]:
    return tuple(CalendarDates(name) for name in names)
