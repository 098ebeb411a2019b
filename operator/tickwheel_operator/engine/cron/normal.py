"""One text for all cron expressions with the same instants: the identity of a schedule, which the ledger keeps.

Values stand for names, in order and once; an `H` is the value that it chose. The text is an expression again, so that a
leader that finds it can ask for the instants.
Invariant: parsed, the text is the schedule that it was made of.
"""

from functools import lru_cache

from .days import DayRule, days_by_month_shape
from .parsing import parse, read_day_rule

__all__ = ["normal_text"]

_FULL_60 = (1 << 60) - 1
_FULL_24 = (1 << 24) - 1
_ALL_MONTHS = (2 << 12) - 2
_EVERY_DAY = DayRule(any_monthday=True, any_weekday=True)
_FIRST_OF_31 = 3
"""The shape of a month of 31 days that begins on a Sunday."""


@lru_cache(maxsize=8_192)
def normal_text(expression: str, identity: str = "") -> str:
    """Return the text for a valid expression: six fields.

    Raises
    ------
    CronError
        The expression cannot be read.
    """
    schedule = parse(expression, identity=identity)
    minute, hour = _times(schedule.minutes, schedule.hours, follows_clock=schedule.follows_clock)
    monthday, weekday = _days(_plain_rule(schedule.days) or read_day_rule(expression, identity))
    second = "*" if schedule.seconds == _FULL_60 else _ranges(schedule.seconds)
    month = "*" if schedule.months == _ALL_MONTHS else _ranges(schedule.months)
    return f"{second} {minute} {hour} {monthday} {month} {weekday}"


def _times(minutes: int, hours: int, *, follows_clock: bool) -> tuple[str, str]:
    """Minute and hour. A range is a list of times, so what follows the clock needs a wildcard or a step to say so."""
    minute, hour = _ranges(minutes), _ranges(hours)
    if not follows_clock:
        return minute, hour
    if minutes == _FULL_60:
        return "*", hour
    if hours == _FULL_24:
        return minute, "*"
    if step := _step_between_ends(minutes):
        return f"{step},{minute}", hour
    return minute, f"{_step_between_ends(hours)},{hour}"


def _step_between_ends(mask: int) -> str:
    """A step from the lowest to the highest value; empty: they are next to each other."""
    low, high = _lowest(mask), mask.bit_length() - 1
    return f"{low}-{high}/{high - low}" if high - low > 1 else ""


def _plain_rule(days: tuple[int, ...]) -> DayRule | None:
    """The rule that only names weekdays, or only days of the month, where one has just these days."""
    for plain in (
        _EVERY_DAY,
        DayRule(any_monthday=True, weekdays=days[_FIRST_OF_31] >> 1 & 0x7F),
        DayRule(any_weekday=True, monthdays=days[_FIRST_OF_31]),
    ):
        if days == days_by_month_shape(plain):
            return plain
    return None


def _days(rule: DayRule) -> tuple[str, str]:
    """Day of month and day of week."""
    monthdays = [_ranges(rule.monthdays)] if rule.monthdays else []
    for distance in _bits(rule.before_last):
        monthdays.append(f"L-{distance}" if distance else "L")
    monthdays += [f"{day}W" for day in _bits(rule.nearest_weekdays)]
    if rule.last_weekday:
        monthdays.append("LW")
    weekdays = [_ranges(rule.weekdays)] if rule.weekdays else []
    weekdays += [f"{weekday}L" for weekday in _bits(rule.last_of_weekday)]
    weekdays += [f"{place % 8}#{place // 8}" for place in _bits(rule.nth_of_weekday)]
    return (
        "*" if rule.any_monthday else ",".join(monthdays),
        "*" if rule.any_weekday else ",".join(weekdays),
    )


def _ranges(mask: int) -> str:
    """The set bits as values and ranges."""
    parts = []
    while mask:
        low = _lowest(mask)
        length = _lowest(~(mask >> low))
        parts.append(str(low) if length == 1 else f"{low}-{low + length - 1}")
        mask &= ~(((1 << length) - 1) << low)
    return ",".join(parts)


def _bits(mask: int) -> list[int]:
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1
