"""The six fields of a cron expression and the values that each may hold.

`parsing` reads text by this table and quotes it in every refusal, so that a person is told the same
bounds that the parser keeps. Invariant: fields are in the order in which they are written.
"""

from dataclasses import dataclass

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_COMMON = "'*' or '?', lists (a,b), ranges (a-b), steps (*/n, a/n, a-b/n), H"


@dataclass(frozen=True, slots=True)
class CronField:
    """What one field may hold."""

    name: str
    low: int
    high: int
    """The highest value; Sunday's second number, 7, is not counted."""
    names: dict[str, int]
    """Names in capitals that stand for a value."""
    hash_high: int
    """The highest value that `H` chooses: every month has it."""
    allowed: str
    """All that the field may hold, for people."""
    example: str
    """A whole expression that uses the field well."""

    @property
    def size(self) -> int:
        """How many values there are."""
        return self.high - self.low + 1


SECOND = CronField("second", 0, 59, {}, 59, f"0-59, {_COMMON}", "*/10 * * * * *")
MINUTE = CronField("minute", 0, 59, {}, 59, f"0-59, {_COMMON}", "*/15 * * * *")
HOUR = CronField("hour", 0, 23, {}, 23, f"0-23, {_COMMON}", "0 9-17 * * *")
DAY_OF_MONTH = CronField(
    "day of month",
    1,
    31,
    {},
    28,
    f"1-31, {_COMMON}, L (last day), L-n (n days before it), nW (weekday nearest to n), LW (last weekday)",
    "0 9 1,15W,L * *",
)
MONTH = CronField(
    "month",
    1,
    12,
    {name: number for number, name in enumerate(_MONTHS, 1)},
    12,
    f"1-12 or JAN-DEC, {_COMMON}",
    "0 9 1 JAN,JUL *",
)
DAY_OF_WEEK = CronField(
    "day of week",
    0,
    6,
    {name: number for number, name in enumerate(_WEEKDAYS)},
    6,
    f"0-7 (0 and 7 are Sunday) or SUN-SAT, {_COMMON}, FRIL (last Friday), FRI#2 (second Friday)",
    "0 9 * * MON-FRI",
)

FIELDS = (SECOND, MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK)
