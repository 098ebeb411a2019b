"""On which days of a month a schedule fires.

`parsing` collects what the two day fields say into a `DayRule`; the rule is then worked out once for each
of the 28 shapes that a month can have (seven weekdays to begin on, four lengths), since `L`, `W` and `#`
depend on nothing else. After that a search never evaluates a rule again.
Invariant: a rule's answer holds days of the month only, so 31 is never set in a month of 30 days.
"""

from dataclasses import dataclass
from functools import lru_cache

_MONDAY_TO_FRIDAY = range(1, 6)


@dataclass(frozen=True, slots=True)
class DayRule:
    """Both day fields of an expression. Weekdays are 0 (Sunday) to 6."""

    monthdays: int = 0
    """Bit n: the nth day of the month."""
    before_last: int = 0
    """Bit n: n days before the last day (`L` is bit 0, `L-3` bit 3)."""
    nearest_weekdays: int = 0
    """Bit n: the weekday nearest to the nth day, in the same month (`nW`)."""
    last_weekday: bool = False
    """The month's last day that is no Saturday or Sunday (`LW`)."""
    any_monthday: bool = False
    """The day of month has a wildcard: it restricts nothing."""
    weekdays: int = 0
    """Bit n: every weekday n."""
    last_of_weekday: int = 0
    """Bit n: the month's last weekday n (`FRIL`)."""
    nth_of_weekday: int = 0
    """Bit 8 * k + n: the month's kth weekday n (`FRI#2`)."""
    any_weekday: bool = False
    """The day of week has a wildcard: it restricts nothing."""

    def days_in(self, first_weekday: int, length: int) -> int:
        """Return the days that match in a month of `length` days; bit n is the nth day."""
        all_days = (2 << length) - 2
        if self.any_monthday and self.any_weekday:
            return all_days
        if self.any_monthday:
            return self._by_weekday(first_weekday, length) & all_days
        if self.any_weekday:
            return self._by_monthday(first_weekday, length) & all_days
        # Both restricted: either matches, as in Kubernetes.
        return (self._by_monthday(first_weekday, length) | self._by_weekday(first_weekday, length)) & all_days

    def _by_monthday(self, first_weekday: int, length: int) -> int:
        days = self.monthdays
        for distance in range(length):
            if self.before_last >> distance & 1:
                days |= 1 << (length - distance)
        for day in range(1, length + 1):
            if self.nearest_weekdays >> day & 1:
                days |= 1 << _nearest_weekday(day, first_weekday, length)
        if self.last_weekday:
            days |= 1 << _nearest_weekday(length, first_weekday, length)
        return days

    def _by_weekday(self, first_weekday: int, length: int) -> int:
        days = 0
        for weekday in range(7):
            first = 1 + (weekday - first_weekday) % 7
            if self.weekdays >> weekday & 1:
                for day in range(first, length + 1, 7):
                    days |= 1 << day
            if self.last_of_weekday >> weekday & 1:
                days |= 1 << (first + (length - first) // 7 * 7)
            for nth in range(1, 6):
                if self.nth_of_weekday >> (8 * nth + weekday) & 1:
                    days |= 1 << (first + 7 * (nth - 1))
        return days


@lru_cache(maxsize=4_096)
def days_by_month_shape(rule: DayRule) -> tuple[int, ...]:
    """Return the days for each shape of a month, in the order that `CronSchedule.days` describes.

    Kept, because tens of thousands of tasks share a few rules: the tuple is one object for all of them.
    """
    return tuple(rule.days_in(first, length) for first in range(7) for length in range(28, 32))


def _nearest_weekday(day: int, first_weekday: int, length: int) -> int:
    weekday = (first_weekday + day - 1) % 7
    if weekday in _MONDAY_TO_FRIDAY:
        return day
    if weekday == 6:  # Saturday: the Friday before it, unless that is in the month before
        return day - 1 if day > 1 else day + 2
    return day + 1 if day < length else day - 2
