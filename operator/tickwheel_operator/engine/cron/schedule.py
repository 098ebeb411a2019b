"""When a parsed cron expression fires.

`parsing` builds `CronSchedule`; triggers and the command line ask it for instants. All state is bit
masks, one bit per permitted value, so that a search jumps from one set bit to the next: months, then
days, then the time of day. Daylight saving is settled here and nowhere else:

- A schedule of fixed times resolves each local time once: one that a gap skips, to the first instant
  after the gap; one that occurs twice, to the first time. Local times and instants then grow together.
- A schedule that follows the clock (its minute or hour field is a wildcard or has a step) fires at every
  instant whose local time matches, and at no other.

Invariant: `next_after` is strictly increasing, and `latest_until` is its exact inverse.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, tzinfo

from .zones import FIRST_SECOND, LAST_SECOND, timeline_of

_DAY_S = 86_400
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_LAST_DAY = date(9999, 12, 28).toordinal() - _EPOCH_ORDINAL
_FIRST_DAY = date(1, 1, 3).toordinal() - _EPOCH_ORDINAL
_OVERLAP_S = 2 * _DAY_S
"""More than any two offsets of one zone differ by, so more than any gap or overlap lasts."""
_HORIZON_S = 100 * 366 * _DAY_S
"""How far a search goes on past candidates that the zone's gaps swallow. The rarest date there is, a
fifth weekday of 29 February, returns within 40 years even around a century that is not a leap year."""
_LENGTHS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class CronSchedule:
    """The instants of a cron expression. Equal schedules fire at equal instants in every zone.

    Not built by hand: `parse` is the constructor.
    """

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
        second = instant_ms // 1000
        if self.impossible or second >= LAST_SECOND:
            return None
        if second < FIRST_SECOND:
            second = FIRST_SECOND
        timeline = timeline_of(zone)
        start, end, offset, before = timeline.span_at(second)
        bound = second + offset + 1
        if not self.follows_clock and bound < start + before:
            bound = start + before  # the second pass of a repeated hour: fixed times fired in the first
        local = self._at_or_after(bound)
        if local is None:
            return None
        horizon = min(second + _HORIZON_S, LAST_SECOND)
        while local >= end + offset:
            probe = end
            # A jump must not pass over the second pass of an hour that repeats at the span's end.
            if not self.follows_clock or self._at_or_after(end + offset - _OVERLAP_S) == local:
                probe = max(end, local - offset - _OVERLAP_S)
            if probe > horizon:
                return None
            start, end, offset, before = timeline.span_at(probe)
            if self.follows_clock:
                local = self._at_or_after(probe + offset)
                if local is None:
                    return None
        # A fixed time below the span's start was skipped by the gap before it: the gap's end stands for it.
        return max(start, local - offset) * 1000

    def latest_until(self, instant_ms: int, zone: tzinfo) -> int | None:
        """Return the last instant at or before `instant_ms`, or `None` if there is none."""
        second = instant_ms // 1000
        if self.impossible or second < FIRST_SECOND:
            return None
        if second > LAST_SECOND:
            second = LAST_SECOND
        timeline = timeline_of(zone)
        start, _, offset, before = timeline.span_at(second)
        bound = second + offset
        if not self.follows_clock and bound < start + before:
            bound = start + before - 1  # the second pass of a repeated hour: the whole first pass is over
        local = self._at_or_before(bound)
        if local is None:
            return None
        horizon = max(second - _HORIZON_S, FIRST_SECOND)
        while local < start + (offset if self.follows_clock else before):
            probe = start - 1
            if not self.follows_clock or self._at_or_before(start + offset + _OVERLAP_S) == local:
                probe = min(probe, local - offset + _OVERLAP_S)
            if probe < horizon:
                return None
            start, _, offset, before = timeline.span_at(probe)
            if self.follows_clock:
                local = self._at_or_before(probe + offset)
                if local is None:
                    return None
        return max(start, local - offset) * 1000

    def iterate(self, after_ms: int, until_ms: int, zone: tzinfo) -> Iterator[int]:
        """Yield the instants after `after_ms`, up to and including `until_ms`, in order."""
        instant = self.next_after(after_ms, zone)
        while instant is not None and instant <= until_ms:
            yield instant
            instant = self.next_after(instant, zone)

    def count(self, after_ms: int, until_ms: int, zone: tzinfo) -> int:
        """Return how many instants `iterate` would yield, by arithmetic: years of seconds cost no more."""
        if self.impossible:
            return 0
        timeline = timeline_of(zone)
        second = max(after_ms // 1000, FIRST_SECOND) + 1
        until = min(until_ms // 1000, LAST_SECOND)
        total = 0
        while second <= until:
            start, end, offset, before = timeline.span_at(second)
            low = second + offset
            if not self.follows_clock:
                if low < start + before:
                    low = start + before  # a repeated hour counts in its first pass only
                elif second == start and self._at_or_after(start + before) != self._at_or_after(low):
                    total += self._at_or_after(low) != low  # all that the gap skipped is one instant, its end
            high = min(until + 1, end) + offset
            if low < high:
                total += self._count_local(low, high)
            second = end
        return total

    def never_fires(self, zone: tzinfo, *, after_ms: int = 0) -> bool:
        """Tell whether no instant after `after_ms` matches in `zone`.

        Besides dates that no year has, this finds times that a zone's gaps always swallow, so `after_ms`
        counts: the rules of a zone change over the years.
        """
        return self.next_after(after_ms, zone) is None

    def _at_or_after(self, local: int) -> int | None:
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

    def _at_or_before(self, local: int) -> int | None:
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

    def _count_local(self, low: int, high: int) -> int:
        """Return how many local times in [low, high) match."""
        low_day, low_second = divmod(low, _DAY_S)
        high_day, high_second = divmod(high, _DAY_S)
        total = self._times_before(_DAY_S) * self._count_days(low_day, high_day)
        if self._matches(low_day):
            total -= self._times_before(low_second)
        if self._matches(high_day):
            total += self._times_before(high_second)
        return total

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


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _highest(mask: int) -> int:
    return mask.bit_length() - 1
