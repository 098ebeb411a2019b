"""What the clock on the wall shows around each change of it, by `zoneinfo` alone: the oracle of the time tests.

It knows nothing of the code under test: no masks, no spans, no arithmetic of offsets. It asks the zone about every
minute of UTC, and a rule of `API.md` about every minute that the wall shows, or skips.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
STEP_S = 6 * 3600

ZONES = (
    ("America/New_York", 2020, 2030),
    ("America/St_Johns", 2020, 2030),  # half an hour beside the others
    ("America/Santiago", 2020, 2030),  # the gap is at midnight
    ("America/Asuncion", 2015, 2025),  # at midnight, and given up in 2024
    ("America/Sao_Paulo", 2009, 2019),  # at midnight; none since
    ("America/Havana", 2020, 2030),  # midnight does not exist, or exists twice
    ("America/Nuuk", 2020, 2030),  # on a Saturday, before midnight; moved its standard time in 2023
    ("America/Mexico_City", 2015, 2025),
    ("Europe/Berlin", 2020, 2030),
    ("Europe/Dublin", 2020, 2030),  # summer is its standard time, and winter the negative saving
    ("Europe/London", 2020, 2030),
    ("Africa/Casablanca", 2020, 2030),  # back to standard time for Ramadan
    ("Africa/Cairo", 2020, 2030),  # at midnight, again since 2023
    ("Asia/Beirut", 2020, 2030),  # at midnight
    ("Asia/Gaza", 2020, 2030),  # twice a year, and around Ramadan
    ("Asia/Jerusalem", 2020, 2030),
    ("Asia/Tehran", 2015, 2025),  # at midnight, an offset of half an hour, given up in 2022
    ("Asia/Amman", 2015, 2025),
    ("Australia/Lord_Howe", 2020, 2030),  # half an hour of saving
    ("Australia/Adelaide", 2020, 2030),
    ("Pacific/Auckland", 2020, 2030),
    ("Pacific/Chatham", 2020, 2030),  # at 02:45
    ("Pacific/Apia", 2011, 2021),  # lost 30 December 2011
    ("Pacific/Norfolk", 2015, 2025),
    ("Antarctica/Troll", 2020, 2030),  # two hours of saving
)
"""Zones with odd rules, each with ten years in which it changed its clock."""


def zoned(second: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(second, zone)


@cache
def changes(zone_name: str, first_year: int, last_year: int) -> tuple[int, ...]:
    """Return the first second of each new offset."""
    zone = ZoneInfo(zone_name)
    at = int(datetime(first_year, 1, 1, tzinfo=UTC).timestamp())
    end = int(datetime(last_year, 1, 1, tzinfo=UTC).timestamp())
    found = []
    before = zoned(at, zone).utcoffset()
    while at < end:
        after = zoned(at + STEP_S, zone).utcoffset()
        if after != before:
            low, high = at, at + STEP_S
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if zoned(middle, zone).utcoffset() == before else (low, middle)
            found.append(high)
        at, before = at + STEP_S, after
    return tuple(found)


@dataclass(frozen=True)
class Stretch:
    """Some hours of a zone, minute by minute."""

    zone: str
    first_ms: int
    last_ms: int
    """Only instants after the first and up to the last are judged; the minutes reach further."""
    shown: tuple[tuple[int, datetime], ...]
    """Each instant in milliseconds, and what the wall shows then."""
    fixed: tuple[tuple[int, datetime], ...]
    """Each local minute, shown or skipped, after the instant in which a fixed time of it fires."""

    def expected(self, *, follows_clock: bool, matches: Callable[[datetime], bool]) -> list[int]:
        """Return the instants of the local minutes that match."""
        pairs = self.shown if follows_clock else self.fixed
        return sorted({at for at, local in pairs if self.first_ms < at <= self.last_ms and matches(local)})


@lru_cache(maxsize=600)
def stretch(zone_name: str, second: int, hours: int) -> Stretch:
    """Return the minutes from so many hours before an instant to as many after it."""
    zone = ZoneInfo(zone_name)
    # Two hours more at both ends, for passes and gaps that begin or end outside.
    first = (second // 60 - (hours + 2) * 60) * 60
    shown = tuple(
        (at * 1000, zoned(at, zone).replace(tzinfo=None, fold=0))
        for at in range(first, first + (2 * hours + 4) * 3600, 60)
    )
    fires: dict[datetime, int] = {}
    latest = shown[0][1] - MINUTE
    for at, local in shown:
        while latest < local:  # also all that was skipped, which fires now
            latest += MINUTE
            fires[latest] = at
    fixed = tuple((at, local) for local, at in fires.items())
    return Stretch(zone_name, (second - hours * 3600) * 1000, (second + hours * 3600) * 1000, shown, fixed)


def stretches(zone_name: str, first_year: int, last_year: int) -> list[Stretch]:
    """Return the hours around each change of a zone's clock."""
    found = []
    for second in changes(zone_name, first_year, last_year):
        before, after = (zoned(at, ZoneInfo(zone_name)).utcoffset() for at in (second - 1, second))
        assert before is not None
        assert after is not None
        found.append(stretch(zone_name, second, 5 if abs(after - before) < timedelta(hours=3) else 28))
    return found


def clock(hours: Collection[int], minutes: Collection[int]) -> Callable[[datetime], bool]:
    """Return a test for a local minute: one of these hours and one of these minutes."""
    times = frozenset((hour, minute) for hour in hours for minute in minutes)
    return lambda local: (local.hour, local.minute) in times
