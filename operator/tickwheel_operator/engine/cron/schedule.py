"""When a parsed cron expression fires.

`parsing` builds `CronSchedule`; triggers and the command line ask it for instants. All state is bit
masks, one bit per permitted value, so that a search jumps from one set bit to the next: months, then
days, then the time of day. All of it is local time; `daylight` turns that into instants.

Invariant: `at_or_after` and `at_or_before` name the same local times, and `count_local` is their number.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, tzinfo
from typing import ClassVar

from . import daylight

_DAY_S = daylight.DAY_S
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_LAST_DAY = date(9999, 12, 28).toordinal() - _EPOCH_ORDINAL
_FIRST_DAY = date(1, 1, 3).toordinal() - _EPOCH_ORDINAL
_FULL_60 = (1 << 60) - 1
_FULL_24 = (1 << 24) - 1
_LENGTHS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class CronSchedule:
    """The instants of a cron expression. Equal schedules fire at equal instants in every zone.

    Not built by hand: `parse` is the constructor.
    """

    unit_ms: ClassVar[int] = 1000
    """Its local times are seconds."""
    expression: str = field(compare=False)
    """The text that was parsed, for people."""
    seconds: int
    """Bit n: fires in second n."""
    minutes: int
    hours: int
    months: int
    """Bit n: fires in month n; 1 is January."""
    days: tuple[int, ...]
    """For each shape of a month, the days on which it fires; bit n is the nth. A month's shape is
    4 * (weekday of its first day, Sunday is 0) + (its length - 28); nothing else decides `L`, `W`, `#`."""
    follows_clock: bool
    """Whether the schedule follows the clock as it really runs, gaps and repeated hours included."""
    daily: bool = field(compare=False)
    """Whether every day matches; spares the search the calendar."""
    impossible: bool = field(compare=False)
    """Whether no date of any year matches, such as 30 February."""

    def next_after(self, instant_ms: int, zone: tzinfo) -> int | None:
        """Return the first instant strictly after `instant_ms`, or `None` if there is none.

        `None` also stands for a schedule that follows the clock and whose every time of the next hundred
        years falls into a gap.
        """
        return None if self.impossible else daylight.next_after(self, instant_ms, zone)

    def latest_until(self, instant_ms: int, zone: tzinfo) -> int | None:
        """Return the last instant at or before `instant_ms`, or `None` if there is none."""
        return None if self.impossible else daylight.latest_until(self, instant_ms, zone)

    def iterate(self, after_ms: int, until_ms: int, zone: tzinfo) -> Iterator[int]:
        """Yield the instants after `after_ms`, up to and including `until_ms`, in order."""
        return iter(()) if self.impossible else daylight.iterate(self, after_ms, until_ms, zone)

    def count(self, after_ms: int, until_ms: int, zone: tzinfo) -> int:
        """Return how many instants `iterate` would yield, by arithmetic: years of seconds cost no more."""
        return 0 if self.impossible else daylight.count(self, after_ms, until_ms, zone)

    def never_fires(self, zone: tzinfo, *, after_ms: int = 0) -> bool:
        """Tell whether no instant after `after_ms` matches in `zone`.

        Besides dates that no year has, this finds times that a zone's gaps always swallow, so `after_ms`
        counts: the rules of a zone change over the years.
        """
        return self.next_after(after_ms, zone) is None

    def at_or_after(self, local: int) -> int | None:
        """Return the first matching local time at or after `local`, in seconds since 1970-01-01 local."""
        day, second_of_day = divmod(local, _DAY_S)
        if self.daily or self._matches(day):
            minute_of_day, second = divmod(second_of_day, 60)
            hour, minute = divmod(minute_of_day, 60)
            if self.hours >> hour & 1:
                if self.minutes >> minute & 1:
                    rest = self.seconds >> second
                    if rest:
                        return local + (rest & -rest).bit_length() - 1
                rest = self.minutes >> (minute + 1)
                if rest:
                    minute += (rest & -rest).bit_length()
                    return day * _DAY_S + hour * 3600 + minute * 60 + _lowest(self.seconds)
            rest = self.hours >> (hour + 1)
            if rest:
                hour += (rest & -rest).bit_length()
                return day * _DAY_S + hour * 3600 + _lowest(self.minutes) * 60 + _lowest(self.seconds)
        following = self._day_after(day)
        if following is None:
            return None
        first = _lowest(self.hours) * 3600 + _lowest(self.minutes) * 60 + _lowest(self.seconds)
        return following * _DAY_S + first

    def at_or_before(self, local: int) -> int | None:
        """Return the last matching local time at or before `local`, in seconds since 1970-01-01 local."""
        day, second_of_day = divmod(local, _DAY_S)
        if self.daily or self._matches(day):
            minute_of_day, second = divmod(second_of_day, 60)
            hour, minute = divmod(minute_of_day, 60)
            if self.hours >> hour & 1:
                if self.minutes >> minute & 1:
                    rest = self.seconds & ((2 << second) - 1)
                    if rest:
                        return local - second + rest.bit_length() - 1
                rest = self.minutes & ((1 << minute) - 1)
                if rest:
                    minute = rest.bit_length() - 1
                    return day * _DAY_S + hour * 3600 + minute * 60 + _highest(self.seconds)
            rest = self.hours & ((1 << hour) - 1)
            if rest:
                hour = rest.bit_length() - 1
                return day * _DAY_S + hour * 3600 + _highest(self.minutes) * 60 + _highest(self.seconds)
        preceding = self._day_before(day)
        if preceding is None:
            return None
        last = _highest(self.hours) * 3600 + _highest(self.minutes) * 60 + _highest(self.seconds)
        return preceding * _DAY_S + last

    def count_local(self, low: int, high: int) -> int:
        """Return how many local times in [low, high) match."""
        low_day, low_second = divmod(low, _DAY_S)
        high_day, high_second = divmod(high, _DAY_S)
        total = self._times_before(_DAY_S) * self._count_days(low_day, high_day)
        if self._matches(low_day):
            total -= self._times_before(low_second)
        if self._matches(high_day):
            total += self._times_before(high_second)
        return total

    def matched_until(self, local: int) -> int | None:
        """Return a time such that all local times from `local` up to it match; `local` itself if that does not.

        Whole minutes, hours and days that match are leapt over: it is the first that does not match, or the beginning
        of a minute, hour or day after one that is not whole. `None`: all match for good.
        """
        day, second_of_day = divmod(local, _DAY_S)
        minute_of_day, second = divmod(second_of_day, 60)
        hour, minute = divmod(minute_of_day, 60)
        if not (self.hours >> hour & 1 and self.minutes >> minute & 1 and self.seconds >> second & 1):
            return local
        if not (self.daily or self._matches(day)):
            return local
        if self.seconds != _FULL_60:
            return local + _lowest_unset(self.seconds, second) - second
        if self.minutes != _FULL_60:
            return local - second + (_lowest_unset(self.minutes, minute) - minute) * 60
        if self.hours != _FULL_24:
            return day * _DAY_S + _lowest_unset(self.hours, hour) * 3600
        unmatched = None if self.daily else self._unmatched_after(day)
        return None if unmatched is None else unmatched * _DAY_S

    def _times_before(self, second_of_day: int) -> int:
        """Return how many matching times a day has before `second_of_day`."""
        minute_of_day, second = divmod(second_of_day, 60)
        hour, minute = divmod(minute_of_day, 60)
        whole_minutes = (self.hours & ((1 << hour) - 1)).bit_count() * self.minutes.bit_count()
        total = 0
        if self.hours >> hour & 1:
            whole_minutes += (self.minutes & ((1 << minute) - 1)).bit_count()
            if self.minutes >> minute & 1:
                total = (self.seconds & ((1 << second) - 1)).bit_count()
        return total + whole_minutes * self.seconds.bit_count()

    def _count_days(self, low: int, high: int) -> int:
        """Return how many days in [low, high) match, in days since 1970-01-01."""
        if self.daily:
            return high - low
        total = 0
        while low < high:
            on = date.fromordinal(low + _EPOCH_ORDINAL)
            days = self._days_of(on.year, on.month) >> on.day if self.months >> on.month & 1 else 0
            length = min(_length_of(on.year, on.month) - on.day + 1, high - low)
            total += (days & ((1 << length) - 1)).bit_count()
            low += length
        return total

    def _matches(self, day: int) -> bool:
        if not _FIRST_DAY <= day <= _LAST_DAY:
            return False
        on = date.fromordinal(day + _EPOCH_ORDINAL)
        return bool(self.months >> on.month & 1 and self._days_of(on.year, on.month) >> on.day & 1)

    def _day_after(self, day: int) -> int | None:
        """Return the first matching day after `day`, in days since 1970-01-01."""
        if day >= _LAST_DAY:
            return None
        if self.daily:
            return day + 1
        on = date.fromordinal(max(day, _FIRST_DAY) + _EPOCH_ORDINAL)
        year, month = on.year, on.month
        rest = self._days_of(year, month) >> (on.day + 1) << (on.day + 1) if self.months >> month & 1 else 0
        while not rest:
            later = self.months >> (month + 1)
            if later:
                month += (later & -later).bit_length()
            else:
                year, month = year + 1, _lowest(self.months)
                if year > 9999:
                    return None
            rest = self._days_of(year, month)
        found = date(year, month, _lowest(rest)).toordinal() - _EPOCH_ORDINAL
        return found if found <= _LAST_DAY else None

    def _unmatched_after(self, day: int) -> int | None:
        """Return the first day after `day` that does not match, in days since 1970-01-01."""
        day += 1
        while day <= _LAST_DAY:
            on = date.fromordinal(day + _EPOCH_ORDINAL)
            days = self._days_of(on.year, on.month) if self.months >> on.month & 1 else 0
            free = _lowest_unset(days, on.day)
            length = _length_of(on.year, on.month)
            day += min(free, length + 1) - on.day
            if free <= length:
                return day
        return None

    def _day_before(self, day: int) -> int | None:
        """Return the last matching day before `day`, in days since 1970-01-01."""
        if day <= _FIRST_DAY:
            return None
        if self.daily:
            return day - 1
        on = date.fromordinal(min(day, _LAST_DAY) + _EPOCH_ORDINAL)
        year, month = on.year, on.month
        rest = self._days_of(year, month) & ((1 << on.day) - 1) if self.months >> month & 1 else 0
        while not rest:
            earlier = self.months & ((1 << month) - 1)
            if earlier:
                month = earlier.bit_length() - 1
            else:
                year, month = year - 1, _highest(self.months)
                if year < 1:
                    return None
            rest = self._days_of(year, month)
        found = date(year, month, _highest(rest)).toordinal() - _EPOCH_ORDINAL
        return found if found >= _FIRST_DAY else None

    def _days_of(self, year: int, month: int) -> int:
        # An ordinal is 1 on Monday, 1 January of year 1; modulo 7 it is the weekday with Sunday as 0.
        return self.days[date(year, month, 1).toordinal() % 7 * 4 + _length_of(year, month) - 28]


def _length_of(year: int, month: int) -> int:
    if month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0):
        return 29
    return _LENGTHS[month]


def _lowest_unset(mask: int, low: int) -> int:
    """Return the first bit from `low` on that is not set."""
    rest = ~(mask >> low)
    return low + (rest & -rest).bit_length() - 1


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _highest(mask: int) -> int:
    return mask.bit_length() - 1
