"""A Calendar as the engine reads it: which instants are in it, and for how long that stands.

`kinds.calendar` makes one value of each Calendar object; the filters of all tasks that name it share it. Days and
cron expressions are read by the wall clock of the calendar's zone, as it really runs: a day that daylight saving makes
23 or 25 hours long is in the calendar for all of them, a day that a zone skipped is not, and an hour that happens twice
is there twice. (Unlike a trigger, a calendar does not fire: nothing of it moves out of a gap.)
Invariant: `covers` depends on the value and the instant alone, and its answer is true until the instant it names.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from datetime import date

from tickwheel_operator.engine.cron import CronSchedule, zone_named
from tickwheel_operator.engine.cron.daylight import DAY_S, OVERLAP_S
from tickwheel_operator.engine.cron.zones import FIRST_SECOND, LAST_SECOND, timeline_of

__all__ = ["FOREVER_MS", "CalendarDates", "weekday_of"]

FOREVER_MS = 2**63 - 1
"""Later than any instant: an answer that stands until then stands for good."""

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_EVERY_WEEKDAY = 127
_NEVER = 2 * LAST_SECOND
"""A local time that no clock shows."""
_JOINS = 64
"""How many entries that follow on each other are joined into one answer. More cost more answers, and change none."""
_CRON_JOINS = 8
"""As `_JOINS`, where each is looked for among expressions: an answer costs little more than looking at each of them."""


class CalendarDates:
    """The dates and times of one calendar. Immutable; equal values name the same instants.

    Parameters
    ----------
    name
        The Calendar's name, for people.
    zone_name
        IANA; the zone whose days these are.
    dates
        First and last day of each range, both included, in any order.
    weekdays
        0 is Monday.
    crons
        Each second that matches is in the calendar.

    Raises
    ------
    UnknownZoneError
        There is no such zone.
    """

    __slots__ = ("_crons", "_ends", "_hash", "_recent", "_starts", "_timeline", "_value", "_weekdays", "name")

    def __init__(
        self,
        name: str,
        *,
        zone_name: str = "UTC",
        dates: Iterable[tuple[date, date]] = (),
        weekdays: Iterable[int] = (),
        crons: Iterable[CronSchedule] = (),
    ) -> None:
        self.name = name
        self._timeline = timeline_of(zone_named(zone_name))
        self._weekdays = sum(1 << weekday for weekday in set(weekdays))
        ranges = _joined(dates)
        self._starts = tuple(first for first, _ in ranges)
        self._ends = tuple(last for _, last in ranges)
        self._crons = tuple(dict.fromkeys(cron for cron in crons if not cron.impossible))
        self._value = (name, zone_name, self._weekdays, self._starts, self._ends, self._crons)
        self._hash = hash(self._value)
        self._recent = (0, 0, False)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, CalendarDates) and self._value == other._value)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"<calendar {self.name}: {len(self._starts)} spans of days, {len(self._crons)} crons>"

    @property
    def crons(self) -> int:
        """How many expressions an answer has to look at."""
        return len(self._crons)

    def covers(self, instant_ms: int) -> tuple[bool, int]:
        """Whether the instant is in the calendar, and until when (exclusive) all instants are as this one.

        What it names may change nothing: an answer can end early, never late. `FOREVER_MS`: for good.
        """
        since, until, inside = self._recent
        if not since <= instant_ms < until:
            inside, until = self._search(instant_ms // 1000)
            # Tasks that share a calendar ask it about the same days, again and again.
            self._recent = (instant_ms, until, inside)
        return inside, until

    def _search(self, second: int) -> tuple[bool, int]:
        if second < FIRST_SECOND:
            return self._search(FIRST_SECOND)[0], FIRST_SECOND * 1000
        if second > LAST_SECOND:
            return self._search(LAST_SECOND)[0], FOREVER_MS
        _, end, offset, _ = self._timeline.span_at(second)
        inside, until = self._shown(second + offset)
        # From here on the clock shows nothing before what it shows now.
        settled = second + OVERLAP_S
        while until - offset > end:
            # The clock may be set at the span's end; but until it comes close to `until`, it shows nothing past it.
            probe = max(end, until - offset - OVERLAP_S) if end >= settled else end
            if probe > LAST_SECOND:
                return inside, FOREVER_MS
            _, end, offset, _ = self._timeline.span_at(probe)
            then, until = self._shown(probe + offset)
            if then is not inside:
                return inside, probe * 1000
        return inside, (until - offset) * 1000

    def _shown(self, local: int) -> tuple[bool, int]:
        """Whether a local time is in the calendar, and until which one it stays so."""
        inside, until = self._entries(local)
        for _ in range(_CRON_JOINS if self._crons else _JOINS):
            if not inside or until >= _NEVER:
                break
            further, then = self._entries(until)
            if not further:
                break
            until = then
        return inside, until

    def _entries(self, local: int) -> tuple[bool, int]:
        """`_shown`, by the entry that reaches furthest alone."""
        inside, until = self._days(local // DAY_S)
        until *= DAY_S
        for cron in self._crons:
            matched = cron.matched_until(local)
            if matched != local:
                reach = _NEVER if matched is None else matched
                until = max(until, reach) if inside else reach
                inside = True
            elif not inside:
                following = cron.at_or_after(local)
                until = until if following is None else min(until, following)
        return inside, until

    def _days(self, day: int) -> tuple[bool, int]:
        """Whether a day is one of the dates or weekdays, and the first day after it that is otherwise."""
        if self._weekdays == _EVERY_WEEKDAY:
            return True, _NEVER
        place = bisect_right(self._starts, day) - 1
        if place >= 0 and day <= self._ends[place]:
            return True, self._ends[place] + 1
        inside = self._is_weekday(day)
        following = self._starts[place + 1] if place + 1 < len(self._starts) else _NEVER
        for later in range(day + 1, min(day + 7, following)):
            if self._is_weekday(later) is not inside:
                return inside, later
        # Until the next range all days are as this one, though a weekday's may go on in it: `_shown` sees that.
        return inside, following

    def _is_weekday(self, day: int) -> bool:
        return bool(self._weekdays >> weekday_of(day) & 1)


def weekday_of(day: int) -> int:
    """The weekday of a day since 1970-01-01; 0 is Monday."""
    return (day + 3) % 7


def _joined(dates: Iterable[tuple[date, date]]) -> list[tuple[int, int]]:
    """The ranges in order, in days since 1970-01-01, none of which touches another."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted((first.toordinal(), last.toordinal()) for first, last in dates):
        if joined and low <= joined[-1][1] + 1:
            low, before = joined.pop()
            high = max(high, before)
        joined.append((low, high))
    return [(low - _EPOCH_ORDINAL, high - _EPOCH_ORDINAL) for low, high in joined]
