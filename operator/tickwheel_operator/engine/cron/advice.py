"""What is legal in a cron expression and yet often not what its author meant.

`tickwheel lint` prints these beside the faults; nothing here refuses anything. Chiefly: where Quartz,
whose six fields look the same, reads the expression differently.
"""

import re

from .fields import DAY_OF_WEEK
from .parsing import parse, split_fields

_NUMBERED_WEEKDAY = re.compile(r"(?<![/#0-9])[0-9]+")
_STEP = re.compile(r"/([0-9]+)")
_WEEKDAY_NAMES = tuple(DAY_OF_WEEK.names)


def quartz_warnings(expression: str) -> list[str]:
    """Return one line for each part of a valid expression that Quartz would read differently.

    Raises
    ------
    CronError
        The expression is not valid here either.
    """
    parse(expression)
    found: list[str] = []
    if expression.strip().startswith("@"):
        return found
    _, _, _, day_of_month, _, day_of_week = split_fields(expression)
    numbers = [int(number) for number in _NUMBERED_WEEKDAY.findall(day_of_week.text)]
    if numbers:
        quartz = "there is no 0" if 0 in numbers else f"it means '{_named(day_of_week.text, first=1)}'"
        found.append(
            f"day of week '{day_of_week.text}' has numbers: here 0 and 7 are Sunday and 1 is Monday, so that it means "
            f"'{_named(day_of_week.text, first=0)}'; in Quartz 1 is Sunday, and {quartz}; names mean the same in both"
        )
    if not day_of_month.is_star and not day_of_week.is_star:
        found.append(
            f"day of month '{day_of_month.text}' and day of week '{day_of_week.text}' are both set: here "
            "a day that matches either fires, Quartz refuses the expression, Spring wants both to match"
        )
    return found


def _named(text: str, *, first: int) -> str:
    """A day-of-week field with names for its numbers, where Sunday is `first`."""
    return _NUMBERED_WEEKDAY.sub(lambda match: _WEEKDAY_NAMES[(int(match[0]) - first) % 7], text)


def warnings(expression: str) -> list[str]:
    """Return all advice about a valid expression: Quartz's differences, and steps that do not step.

    Raises
    ------
    CronError
        The expression is not valid.
    """
    found = quartz_warnings(expression)
    if expression.strip().startswith("@"):
        return found
    for written in split_fields(expression):
        for match in _STEP.finditer(written.text):
            if int(match[1]) >= written.field.size:
                which = "at one of them only, which H draws" if "H" in written.text else "at the first of them only"
                found.append(
                    f"{written.field.name} '{written.text}' has a step of {match[1]}, but the field has only "
                    f"{written.field.size} values, so it fires {which}; a step begins again "
                    "with the field, so for a longer period use fixedRate"
                )
    return found
