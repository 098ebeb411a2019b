"""What a cron expression says of one local minute, read afresh each time: an oracle of the time tests."""

import calendar
from datetime import date, datetime, timedelta
from functools import lru_cache

WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]


def number(text: str) -> int:
    return WEEKDAYS.index(text) if text in WEEKDAYS else int(text)


def item_matches(item: str, value: int, low: int, high: int) -> bool:
    base, _, step_text = item.partition("/")
    step = int(step_text or 1)
    if base == "*":
        return (value - low) % step == 0
    if "-" not in base:
        start = number(base)
        return value == start if not step_text else value >= start and (value - start) % step == 0
    start, end = (number(part) for part in base.split("-"))
    at = start
    for count in range(high - low + 1):
        if at == value and count % step == 0:
            return True
        if at == end:
            return False
        at = low if at == high else at + 1
    return False


def has_star(text: str) -> bool:
    return any(item == "*" or (item.startswith("*/") and int(item[2:]) == 1) for item in text.split(","))


def names_a_rhythm(text: str, low: int, high: int) -> bool:
    """A star, or a step of two and more that reaches a second value."""
    if has_star(text):
        return True
    stepped = [item for item in text.split(",") if "/" in item and int(item.partition("/")[2]) > 1]
    return any(sum(item_matches(item, value, low, high) for value in range(low, high + 1)) > 1 for item in stepped)


def field_matches(text: str, value: int, low: int, high: int) -> bool:
    return any(item_matches(item, value, low, high) for item in text.split(","))


def month_dates(day: date) -> list[date]:
    return [day.replace(day=n + 1) for n in range(calendar.monthrange(day.year, day.month)[1])]


def day_of_month_matches(item: str, day: date) -> bool:
    dates = month_dates(day)
    if item == "LW":
        return day == [candidate for candidate in dates if candidate.isoweekday() <= 5][-1]
    if item.startswith("L"):
        return day == dates[-1] - timedelta(days=int(item[2:] or 0))
    if item.endswith("W"):
        if int(item[:-1]) > len(dates):
            return False
        target = dates[int(item[:-1]) - 1]
        workdays = [candidate for candidate in dates if candidate.isoweekday() <= 5]
        return day == min(workdays, key=lambda candidate: abs(candidate - target))
    return item_matches(item, day.day, 1, 31)


def day_of_week_matches(item: str, day: date) -> bool:
    same = [candidate for candidate in month_dates(day) if candidate.weekday() == day.weekday()]
    if "#" in item:
        weekday, nth = item.split("#")
        return day.isoweekday() % 7 == number(weekday) and same.index(day) == int(nth) - 1
    if item.endswith("L"):
        return day.isoweekday() % 7 == number(item[:-1]) and day == same[-1]
    return item_matches(item, day.isoweekday() % 7, 0, 6)


@lru_cache(maxsize=4_000)
def date_matches(day_fields: str, day: date) -> bool:
    monthday, month, weekday = day_fields.split()
    if not field_matches(month, day.month, 1, 12):
        return False
    by_month = any(day_of_month_matches(item, day) for item in monthday.split(","))
    by_week = any(day_of_week_matches(item, day) for item in weekday.split(","))
    if has_star(monthday) or has_star(weekday):
        return by_month and by_week
    return by_month or by_week


def local_matches(expression: str, local: datetime) -> bool:
    minute, hour, day_fields = expression.split(maxsplit=2)
    return (
        date_matches(day_fields, local.date())
        and field_matches(hour, local.hour, 0, 23)
        and field_matches(minute, local.minute, 0, 59)
    )
