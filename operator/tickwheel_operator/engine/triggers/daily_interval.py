"""Triggers that fire at an interval between two times of day."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

import msgspec

from tickwheel_operator.engine.cron import daylight, zone_named

from .calendar import weekday_of
from .spelling import spell_clock, spell_duration

__all__ = ["DailyIntervalTrigger"]

_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000
_EVERY_DAY = 127
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


class DailyIntervalTrigger(msgspec.Struct, frozen=True, array_like=True, tag="dailyInterval"):
    """An instant every so often between two times of day, counted from the first of them.

    The instants are the times `from`, `from` + `every`, `from` + 2 * `every`, ... that the clock on the wall shows
    before `to`. When the clock is set, an interval of up to an hour follows the clock as it really runs, as a step of a
    cron expression does: both passes of a repeated hour, nothing for a skipped one, so that "every 15m" never pauses. A
    longer one names a few fixed times, and each comes once: after the gap, if a gap skips it; the first time, if it
    happens twice.
    """

    unit_ms: ClassVar[int] = 1
    """Its local times are milliseconds."""

    every_ms: int
    """1 or more. (Users may ask for 10 ms and more.)"""
    from_ms: int
    """After midnight, by the clock on the wall: 0 to 86,400,000."""
    to_ms: int
    """As `from_ms`. No instant at or after it; before `from_ms`: that time of the next day."""
    days: int = _EVERY_DAY
    """Bit n: a span begins on weekday n; 0 is Monday."""
    zone_name: str = "UTC"

    def __post_init__(self) -> None:
        zone_named(self.zone_name)
        if self.every_ms < 1:
            raise ValueError(f"every_ms is {self.every_ms}; an interval is 1 ms or more, for example 900000 for 15m")
        if not (0 <= self.from_ms <= _DAY_MS and 0 <= self.to_ms <= _DAY_MS) or self._span_ms == 0:
            raise ValueError(
                f"from_ms {self.from_ms} and to_ms {self.to_ms} must be two different times of day: 0 to {_DAY_MS}"
            )
        if not 0 < self.days <= _EVERY_DAY:
            raise ValueError(f"days is {self.days}; a bit for each weekday: 1 (Mon) to {_EVERY_DAY} (all)")

    def next_after(self, instant_ms: int) -> int | None:
        return daylight.next_after(self, instant_ms, zone_named(self.zone_name))

    def last_at_or_before(self, instant_ms: int, after_ms: int) -> int | None:
        latest = daylight.latest_until(self, instant_ms, zone_named(self.zone_name))
        return latest if latest is not None and latest > after_ms else None

    def count_between(self, after_ms: int, until_ms: int, limit: int) -> int:
        return min(limit, daylight.count(self, after_ms, until_ms, zone_named(self.zone_name)))

    def key(self) -> Hashable:
        return self.normal()

    def normal(self) -> DailyIntervalTrigger:
        # The earliest end with the same times: 20:00 says no more than 24:00 where the last of them is 18:00.
        to_ms = self.from_ms + (self._per_day - 1) * self.every_ms + 1
        to_ms -= _DAY_MS if to_ms > _DAY_MS else 0
        return DailyIntervalTrigger(self.every_ms, self.from_ms, to_ms, self.days, self.zone_name)

    def describe(self) -> str:
        names = [name for weekday, name in enumerate(_WEEKDAYS) if self.days >> weekday & 1]
        days = "" if self.days == _EVERY_DAY else f" on {', '.join(names)}"
        return (
            f"every {spell_duration(self.every_ms)} from {spell_clock(self.from_ms)} to {spell_clock(self.to_ms)}"
            f"{days} ({self.zone_name})"
        )

    @property
    def follows_clock(self) -> bool:
        """See the class."""
        return self.every_ms <= _HOUR_MS

    def at_or_after(self, local: int) -> int | None:
        """The first of the local times at or after `local`."""
        day, since = divmod(local - self.from_ms, _DAY_MS)
        place = -(-since // self.every_ms)
        if place >= self._per_day or not self._begins_on(day):
            place, day = 0, day + 1
            while not self._begins_on(day):
                day += 1
        return day * _DAY_MS + self.from_ms + place * self.every_ms

    def at_or_before(self, local: int) -> int | None:
        """The last of the local times at or before `local`."""
        day, since = divmod(local - self.from_ms, _DAY_MS)
        while not self._begins_on(day):
            day, since = day - 1, _DAY_MS
        return day * _DAY_MS + self.from_ms + min(since // self.every_ms, self._per_day - 1) * self.every_ms

    def count_local(self, low: int, high: int) -> int:
        """How many of the local times are in [low, high)."""
        return self._count_before(high) - self._count_before(low)

    @property
    def _per_day(self) -> int:
        """How many times a span has."""
        return -(-self._span_ms // self.every_ms)

    @property
    def _span_ms(self) -> int:
        """0 where both are one time of day."""
        span_ms = self.to_ms - self.from_ms
        return span_ms + _DAY_MS if span_ms < 0 else span_ms

    def _begins_on(self, day: int) -> bool:
        return bool(self.days >> weekday_of(day) & 1)

    def _count_before(self, local: int) -> int:
        """How many of the local times are before `local`, from a Monday long ago."""
        day, since = divmod(local - self.from_ms, _DAY_MS)
        weeks, weekday = divmod(day + 3, 7)
        whole_days = weeks * self.days.bit_count() + (self.days & ((1 << weekday) - 1)).bit_count()
        today = min(-(-since // self.every_ms), self._per_day) if self._begins_on(day) else 0
        return whole_days * self._per_day + today
