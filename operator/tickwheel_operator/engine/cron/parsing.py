"""From the text of a cron expression to a `CronSchedule`.

`parse` is what the engine, the admission checks and the command line call. The text is read field by
field, each field item by item; an item adds bits to a mask or a rule for days. Whatever is wrong is
refused with the field, the bad text, what is allowed and an example, since the reader of the message is
the person who wrote the expression.
Invariant: the schedule depends on the text, and on `identity` only where the text has an `H`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256

from .days import DayRule, days_by_month_shape
from .errors import CronError
from .fields import DAY_OF_WEEK, FIELDS, CronField
from .schedule import CronSchedule

MAX_EXPRESSION_LENGTH = 256
"""Characters. A schedule that needs more is two tasks."""

_MACROS = {
    "@YEARLY": "0 0 1 1 *",
    "@ANNUALLY": "0 0 1 1 *",
    "@MONTHLY": "0 0 1 * *",
    "@WEEKLY": "0 0 * * 0",
    "@DAILY": "0 0 * * *",
    "@MIDNIGHT": "0 0 * * *",
    "@HOURLY": "0 * * * *",
}
_VALUE = r"[0-9]+|[A-Z]{3}"
_ITEM = re.compile(
    rf"(?:(?P<any>[*?])|(?P<hash>H)(?:\((?P<hash_from>{_VALUE})-(?P<hash_to>{_VALUE})\))?"
    rf"|(?P<from>{_VALUE})(?:-(?P<to>{_VALUE}))?)(?:/(?P<step>[0-9]+))?"
)
_BEFORE_LAST = re.compile(r"L(?:-([0-9]+))?")
_NEAREST_WEEKDAY = re.compile(r"([0-9]+)W")
_LAST_OF_WEEKDAY = re.compile(rf"({_VALUE})L")
_NTH_OF_WEEKDAY = re.compile(rf"({_VALUE})#([0-9]+)")
_ALL_MONTHS = (2 << 12) - 2
_EVERY_DAY = days_by_month_shape(DayRule(any_monthday=True, any_weekday=True))


@dataclass(frozen=True, slots=True)
class _Place:
    """An item of the text: where it stands and to which field it belongs."""

    field: CronField
    text: str
    position: int

    @property
    def step(self) -> int:
        """How far apart its values are; 1 where none is written."""
        match = _ITEM.fullmatch(self.text)
        return 1 if match is None else int(match["step"] or 1)

    @property
    def is_star(self) -> bool:
        """Whether it is a wildcard, which restricts nothing: `*`, `?`, and both with a step of one."""
        return self.text[:1] in ("*", "?") and self.step == 1

    def refuse(self, what: str) -> CronError:
        return CronError(
            f"{self.field.name} field: '{self.text}' {what}; allowed: {self.field.allowed}; "
            f"for example '{self.field.example}'",
            field=self.field.name,
            position=self.position,
        )


@dataclass(frozen=True, slots=True)
class _FieldText:
    """One field of an expression, as it is written."""

    field: CronField
    text: str
    position: int

    @property
    def is_star(self) -> bool:
        """Whether an item is a wildcard. A range that happens to hold all values is none, as in Kubernetes."""
        return any(place.is_star for place in self.items())

    def items(self) -> Iterator[_Place]:
        position = self.position
        for text in self.text.split(","):
            place = _Place(self.field, text, position)
            if not text:
                raise place.refuse("is an empty item of a list")
            yield place
            position += len(text) + 1


def parse(expression: str, *, identity: str = "") -> CronSchedule:
    """Read a cron expression of 5 fields, or 6 with the seconds first, or a macro such as `@daily`.

    Parameters
    ----------
    expression
        At most 256 characters; names in any case.
    identity
        What `H` is a hash of: the same identity always gets the same values. A task's uid.

    Raises
    ------
    CronError
        The text cannot be read. A schedule that can be read but never fires is returned; ask it
        with `never_fires`, which needs the time zone.
    """
    return _parse(expression, identity if "h" in expression or "H" in expression else "")


@lru_cache(maxsize=8_192)
def _parse(expression: str, identity: str) -> CronSchedule:
    second, minute, hour, day_of_month, month, day_of_week = split_fields(expression)
    days = days_by_month_shape(_read_day_fields(day_of_month, day_of_week, identity))
    months = _read_mask(month, identity)
    return CronSchedule(
        expression=expression,
        seconds=_read_mask(second, identity),
        minutes=_read_mask(minute, identity),
        hours=_read_mask(hour, identity),
        months=months,
        days=days,
        follows_clock=_follows_clock(minute, identity) or _follows_clock(hour, identity),
        daily=months == _ALL_MONTHS and days == _EVERY_DAY,
        impossible=not any(
            days[4 * first + length - 28]
            for number in range(1, 13)
            if months >> number & 1
            for first in range(7)
            for length in _lengths_of(number)
        ),
    )


def read_day_rule(expression: str, identity: str) -> DayRule:
    """Return what the two day fields of an expression say. Raises `CronError`."""
    fields = split_fields(expression)
    return _read_day_fields(fields[3], fields[5], identity)


def split_fields(expression: str) -> tuple[_FieldText, ...]:
    """Return the six fields of an expression in capitals; the second is `0` where none is written.

    Raises
    ------
    CronError
        The text is too long, is no macro that is known, or has another number of fields.
    """
    if len(expression) > MAX_EXPRESSION_LENGTH:
        raise CronError(
            f"a cron expression has at most {MAX_EXPRESSION_LENGTH} characters, this one has "
            f"{len(expression)}; shorten it with ranges and steps ('0-30/5'), or write two tasks",
            position=MAX_EXPRESSION_LENGTH,
        )
    for position, character in enumerate(expression):
        if not (" " <= character <= "~" or character in "\t\r\n"):
            raise CronError(
                f"character {character!r} at position {position} does not belong in a cron expression; "
                "allowed: ASCII letters, digits, spaces and * ? , - / # ( ) @; for example '0 9 * * MON-FRI'",
                position=position,
            )
    words = [(match.group(), match.start()) for match in re.finditer(r"\S+", expression.upper())]
    if words and words[0][0].startswith("@"):
        return split_fields(_macro(expression, words))
    if words and words[0][0].startswith(("TZ=", "CRON_TZ=")):
        prefix = expression[words[0][1] :].split()[0]
        zone = prefix.partition("=")[2] or "Asia/Shanghai"
        raise CronError(
            f"'{prefix}' does not belong in a cron expression; write the zone beside it, as timeZone: {zone}",
            position=words[0][1],
        )
    if len(words) == 5:
        words.insert(0, ("0", 0))
    if len(words) != 6:
        year = " (a seventh field for the year, as in Quartz, is not supported)" if len(words) == 7 else ""
        raise CronError(
            f"'{expression}' has {len(words)} fields{year}; allowed: 5 (minute, hour, day of month, month, "
            "day of week), 6 (the second first), or a macro such as @daily; for example '0 9 * * MON-FRI'",
            position=words[6][1] if len(words) > 6 else 0,
        )
    return tuple(_FieldText(field, text, position) for field, (text, position) in zip(FIELDS, words, strict=True))


def values_of(place: _Place, identity: str) -> list[int]:
    """Return the values that a plain item stands for, in the order in which it names them.

    Raises
    ------
    CronError
        The item is no wildcard, value, range or `H`, with or without a step.
    """
    field = place.field
    match = _ITEM.fullmatch(place.text)
    if match is None:
        raise place.refuse("cannot be read")
    step = int(match["step"] or 1)
    if step < 1:
        raise place.refuse("has a step of 0; a step is 1 or more")
    if match["hash"]:
        if match["hash_from"]:
            choices = _range(place, match["hash_from"], match["hash_to"])
        else:
            choices = list(range(field.low, field.hash_high + 1))
        number = _hash(identity, field)
        if match["step"]:
            return choices[number % min(step, len(choices)) :: step]
        return [choices[number % len(choices)]]
    if match["any"]:
        return list(range(field.low, field.high + 1, step))
    if match["to"]:
        return _range(place, match["from"], match["to"])[::step]
    start = _value(place, match["from"])
    return list(range(start, field.high + 1, step)) if match["step"] else [start]


def _macro(expression: str, words: list[tuple[str, int]]) -> str:
    word, position = words[0]
    written = expression[position : position + len(word)]
    if word in _MACROS and len(words) == 1:
        return _MACROS[word]
    if word in _MACROS:
        what = f"'{written}' stands alone, but '{expression[words[1][1] :].strip()}' follows it"
    elif word == "@EVERY":
        what = f"'{written}' is not known here; write trigger.fixedRate instead, as fixedRate: 5m"
    else:
        what = f"'{written}' is not known"
    raise CronError(
        f"{what}; allowed: {', '.join(macro.lower() for macro in _MACROS)}; for example '@daily'",
        position=position,
    )


def _read_mask(field_text: _FieldText, identity: str) -> int:
    return _mask(value for place in field_text.items() for value in values_of(place, identity))


def _follows_clock(field_text: _FieldText, identity: str) -> bool:
    """Whether the field names a rhythm instead of times: a wildcard, or a step from one value to another. A step of one
    only spells a range, and a step past the field's end one value."""
    return any(
        place.is_star or (place.step > 1 and len(set(values_of(place, identity))) > 1) for place in field_text.items()
    )


def _read_day_fields(day_of_month: _FieldText, day_of_week: _FieldText, identity: str) -> DayRule:
    return _read_days_of_week(day_of_week, identity, _read_days_of_month(day_of_month, identity, DayRule()))


def _read_days_of_month(field_text: _FieldText, identity: str, rule: DayRule) -> DayRule:
    rule = replace(rule, any_monthday=field_text.is_star)
    for place in field_text.items():
        if place.text == "LW":
            rule = replace(rule, last_weekday=True)
        elif match := _BEFORE_LAST.fullmatch(place.text):
            distance = int(match[1] or 0)
            if distance > 30:
                raise place.refuse("is before the first day of every month; L-n goes from L-1 to L-30")
            rule = replace(rule, before_last=rule.before_last | 1 << distance)
        elif match := _NEAREST_WEEKDAY.fullmatch(place.text):
            day = _value(place, match[1])
            rule = replace(rule, nearest_weekdays=rule.nearest_weekdays | 1 << day)
        else:
            rule = replace(rule, monthdays=rule.monthdays | _mask(values_of(place, identity)))
    return rule


def _read_days_of_week(field_text: _FieldText, identity: str, rule: DayRule) -> DayRule:
    rule = replace(rule, any_weekday=field_text.is_star)
    for place in field_text.items():
        if place.text == "L":
            raise place.refuse("needs a weekday before it: FRIL is the last Friday; Saturday is SAT")
        if match := _LAST_OF_WEEKDAY.fullmatch(place.text):
            weekday = _value(place, match[1])
            rule = replace(rule, last_of_weekday=rule.last_of_weekday | 1 << weekday)
        elif match := _NTH_OF_WEEKDAY.fullmatch(place.text):
            weekday, nth = _value(place, match[1]), int(match[2])
            if not 1 <= nth <= 5:
                raise place.refuse("counts a weekday that no month has; after # comes 1 to 5")
            rule = replace(rule, nth_of_weekday=rule.nth_of_weekday | 1 << (8 * nth + weekday))
        else:
            rule = replace(rule, weekdays=rule.weekdays | _mask(values_of(place, identity)))
    return rule


def _range(place: _Place, first: str, last: str) -> list[int]:
    """Return the values from `first` to `last`, round the end of the field if `last` is lower."""
    field = place.field
    low, high = _value(place, first), _value(place, last)
    if field is DAY_OF_WEEK and last.lstrip("0") == "7" != first.lstrip("0"):
        high = 7  # as an end, 7 is the Sunday after Saturday: 5-7 is Friday to Sunday, 0-7 the whole week
    values = range(low, high + 1) if low <= high else range(low, high + field.size + 1)
    return [field.low + (value - field.low) % field.size for value in values]


def _value(place: _Place, text: str) -> int:
    field = place.field
    if not text.isdigit():
        if text not in field.names:
            raise place.refuse(f"has the name '{text}', which is not known here")
        return field.names[text]
    value = int(text)
    if field is DAY_OF_WEEK and value == 7:
        return 0
    if not field.low <= value <= field.high:
        raise place.refuse("is out of range")
    return value


def _hash(identity: str, field: CronField) -> int:
    """Return the number behind `H`: fixed for ever, since a change would move every task that uses it."""
    digest = sha256(f"{identity}\0{field.name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def _mask(values: Iterator[int] | list[int]) -> int:
    mask = 0
    for value in values:
        mask |= 1 << value
    return mask


def _lengths_of(month: int) -> tuple[int, ...]:
    if month == 2:
        return (28, 29)
    return (30,) if month in (4, 6, 9, 11) else (31,)
