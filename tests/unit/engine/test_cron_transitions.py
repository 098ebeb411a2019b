"""Every change of the clock of 25 zones in ten years each, against the wall clock itself.

The oracle walks over the minutes of UTC and asks `zoneinfo` what the wall shows (`wall_clock`); what an expression
means is written beside it in Python, by the rules of `API.md`.
"""

from bisect import bisect_right
from collections.abc import Callable
from datetime import datetime

import pytest
from tests.unit.engine.wall_clock import ZONES, Stretch, changes, clock, stretches

from tickwheel_operator.engine.triggers import CronTrigger

EVERY = range(60)
HOURS = range(24)

SCHEDULES: list[tuple[str, bool, Callable[[datetime], bool]]] = [
    # Fixed times: each once.
    ("30 2 * * *", False, clock([2], [30])),
    ("0 0 * * *", False, clock([0], [0])),
    ("15 1 * * *", False, clock([1], [15])),
    ("45 23 * * *", False, clock([23], [45])),
    ("0 3 * * *", False, clock([3], [0])),
    ("0,30 0,2 * * *", False, clock([0, 2], [0, 30])),
    ("0-59 1-2 * * *", False, clock([1, 2], EVERY)),
    ("10-50 0-23 * * *", False, clock(HOURS, range(10, 51))),
    ("45 22-1 * * *", False, clock([22, 23, 0, 1], [45])),
    ("30 1 * * SUN", False, lambda local: local.isoweekday() == 7 and (local.hour, local.minute) == (1, 30)),
    ("0 */24 * * *", False, clock([0], [0])),
    ("*/60 2/22 * * *", False, clock([2], [0])),
    ("45 22-23/1 * * *", False, clock([22, 23], [45])),
    ("20 0 1-15 * *", False, lambda local: local.day <= 15 and (local.hour, local.minute) == (0, 20)),
    # A wildcard or a step in minute or hour: as the clock really runs.
    ("* * * * *", True, lambda local: True),
    ("30 * * * *", True, clock(HOURS, [30])),
    ("*/15 * * * *", True, clock(HOURS, [0, 15, 30, 45])),
    ("* 2 * * *", True, clock([2], EVERY)),
    ("*/20 0-2 * * *", True, clock([0, 1, 2], [0, 20, 40])),
    ("5/25 1 * * *", True, clock([1], [5, 30, 55])),
    ("0 */2 * * *", True, clock(range(0, 24, 2), [0])),
    ("30 0-6/3 * * *", True, clock([0, 3, 6], [30])),
    ("10 ? * * *", True, clock(HOURS, [10])),
    ("*/30 23,0 * * SAT,SUN", True, lambda at: at.isoweekday() >= 6 and at.hour in (23, 0) and at.minute in (0, 30)),
]  # fmt: skip


@pytest.mark.parametrize(("zone", "first_year", "last_year"), ZONES, ids=lambda value: str(value))
def test_around_every_change_of_the_clock_a_cron_fires_as_the_wall_says(
    zone: str, first_year: int, last_year: int
) -> None:
    around = stretches(zone, first_year, last_year)
    assert len(around) >= 7
    for hours in around:
        for expression, follows_clock, matches in SCHEDULES:
            expected = hours.expected(follows_clock=follows_clock, matches=matches)
            assert_fires(CronTrigger(expression, zone), hours, expected)


def assert_fires(trigger: CronTrigger, hours: Stretch, expected: list[int]) -> None:
    found = []
    at = trigger.next_after(hours.first_ms)
    while at is not None and at <= hours.last_ms:
        found.append(at)
        at = trigger.next_after(at)
    assert found == expected, f"{trigger.describe()} near {hours.first_ms}"
    assert trigger.count_between(hours.first_ms, hours.last_ms, 10**6) == len(expected)
    # Asked from odd places too: inside of gaps, second passes, between the minutes.
    for instant in range(hours.first_ms + 1_234_567, hours.last_ms, 7_777_777):
        earlier = bisect_right(expected, instant)
        last = trigger.last_at_or_before(instant, hours.first_ms)
        assert last == (expected[earlier - 1] if earlier else None)
        following = trigger.next_after(instant)
        if earlier < len(expected):
            assert following == expected[earlier]
        else:
            assert following is None or following > hours.last_ms
        assert trigger.count_between(instant, hours.last_ms, 10**6) == len(expected) - earlier


def test_the_zones_change_their_clocks_more_than_four_hundred_times() -> None:
    assert sum(len(changes(*zone)) for zone in ZONES) > 400
