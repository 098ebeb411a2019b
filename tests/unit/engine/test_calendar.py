"""What is in a calendar, and how long an answer stands, against the wall clock minute by minute."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.unit.engine.cron_reading import local_matches
from tests.unit.engine.wall_clock import zoned

from tickwheel_operator.engine.cron import UnknownZoneError, parse
from tickwheel_operator.engine.triggers.calendar import FOREVER_MS, CalendarDates

DAY_MS = 86_400_000


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def spans(calendar: CalendarDates, after: str, until: str, zone: str = "UTC") -> list[tuple[str, str]]:
    """Return what is in the calendar between two instants: first instant and end of each span, as the wall shows."""
    at, end = instant(after), instant(until)
    found: list[list[int]] = []
    while at < end:
        inside, stands_until = calendar.covers(at)
        assert stands_until > at
        if inside and found and found[-1][1] == at:
            found[-1][1] = min(stands_until, end)
        elif inside:
            found.append([at, min(stands_until, end)])
        at = stands_until
    texts = [[datetime.fromtimestamp(at / 1000, ZoneInfo(zone)).isoformat() for at in span] for span in found]
    return [(first, last) for first, last in texts]


def test_a_calendar_holds_its_dates_its_weekdays_and_the_seconds_of_its_crons() -> None:
    calendar = CalendarDates(
        "cn-holidays",
        zone_name="Asia/Shanghai",
        dates=[(date(2026, 10, 1), date(2026, 10, 1)), (date(2026, 10, 2), date(2026, 10, 7))],
        weekdays=[5, 6],
        crons=[parse("* * 0-6 * * *")],
    )
    assert spans(calendar, "2026-09-30T12:00:00+08:00", "2026-10-12T12:00:00+08:00", "Asia/Shanghai") == [
        ("2026-10-01T00:00:00+08:00", "2026-10-08T07:00:00+08:00"),
        ("2026-10-09T00:00:00+08:00", "2026-10-09T07:00:00+08:00"),
        ("2026-10-10T00:00:00+08:00", "2026-10-12T07:00:00+08:00"),
    ]


def test_a_day_is_as_long_as_daylight_saving_makes_it() -> None:
    changes = CalendarDates(
        "changes", zone_name="Europe/Berlin", dates=[(date(2026, 3, 29),) * 2, (date(2026, 10, 25),) * 2]
    )
    assert spans(changes, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "Europe/Berlin") == [
        ("2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"),
        ("2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"),
    ]


def test_a_day_that_begins_after_midnight_or_twice_is_whole() -> None:
    # Sao Paulo: 4 November 2018 begins at 01:00; 17 February 2018 ends, and an hour of it comes again.
    calendar = CalendarDates(
        "changes", zone_name="America/Sao_Paulo", dates=[(date(2018, 11, 4),) * 2, (date(2018, 2, 18),) * 2]
    )
    assert spans(calendar, "2018-01-01T00:00:00Z", "2019-01-01T00:00:00Z", "America/Sao_Paulo") == [
        ("2018-02-18T00:00:00-03:00", "2018-02-19T00:00:00-03:00"),
        ("2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"),
    ]
    before = CalendarDates("eve", zone_name="America/Sao_Paulo", dates=[(date(2018, 2, 17),) * 2])
    assert spans(before, "2018-01-01T00:00:00Z", "2019-01-01T00:00:00Z", "America/Sao_Paulo") == [
        ("2018-02-17T00:00:00-02:00", "2018-02-18T00:00:00-03:00"),
    ]


def test_a_day_that_a_zone_skipped_holds_nothing() -> None:
    skipped = CalendarDates("skipped", zone_name="Pacific/Apia", dates=[(date(2011, 12, 30),) * 2])
    assert spans(skipped, "2011-12-01T00:00:00Z", "2012-02-01T00:00:00Z") == []
    around = CalendarDates("around", zone_name="Pacific/Apia", dates=[(date(2011, 12, 29), date(2011, 12, 31))])
    assert spans(around, "2011-12-01T00:00:00Z", "2012-02-01T00:00:00Z", "Pacific/Apia") == [
        ("2011-12-29T00:00:00-10:00", "2012-01-01T00:00:00+14:00")
    ]


def test_an_hour_that_happens_twice_is_in_the_calendar_twice_and_one_that_is_skipped_is_not() -> None:
    nights = CalendarDates("nights", zone_name="Europe/Berlin", crons=[parse("* * 2 * * *"), parse("0-59 30 1 * * *")])
    assert spans(nights, "2026-10-25T00:00:00+02:00", "2026-10-25T12:00:00+01:00", "Europe/Berlin") == [
        ("2026-10-25T01:30:00+02:00", "2026-10-25T01:31:00+02:00"),
        ("2026-10-25T02:00:00+02:00", "2026-10-25T03:00:00+01:00"),
    ]
    assert spans(nights, "2026-03-29T00:00:00+01:00", "2026-03-29T12:00:00+02:00", "Europe/Berlin") == [
        ("2026-03-29T01:30:00+01:00", "2026-03-29T01:31:00+01:00"),
    ]


def test_a_cron_of_five_fields_is_one_second_of_each_minute() -> None:
    calendar = CalendarDates("seconds", crons=[parse("0-1 9 * * *")])
    assert spans(calendar, "2026-06-01T00:00:00Z", "2026-06-02T00:00:00Z") == [
        ("2026-06-01T09:00:00+00:00", "2026-06-01T09:00:01+00:00"),
        ("2026-06-01T09:01:00+00:00", "2026-06-01T09:01:01+00:00"),
    ]


# --- against the wall clock -------------------------------------------------------------------------------

WINDOWS = [
    ("Pacific/Apia", "2011-12-28T00:00:00Z"),
    ("America/Havana", "2026-03-07T00:00:00Z"),
    ("America/Havana", "2026-10-31T00:00:00Z"),
    ("America/Sao_Paulo", "2018-02-16T12:00:00Z"),
    ("America/Santiago", "2026-09-05T00:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T00:00:00Z"),
    ("Europe/Berlin", "2026-10-24T00:00:00Z"),
    ("UTC", "2026-02-27T12:00:00Z"),
]
FIELDS = {
    "minute": st.sampled_from(["*", "*", "*/15", "0", "30-59", "0-29,45", "59-1", "1-58"]),
    "hour": st.sampled_from(["*", "*", "0", "0-6", "23-1", "1,2", "2-3", "*/2", "22-20"]),
    "monthday": st.sampled_from(["*", "*", "1", "L", "28-5", "30", "1-15", "LW", "2-31"]),
    "month": st.sampled_from(["*", "*", "1-11", "3", "10-12", "2,12"]),
    "weekday": st.sampled_from(["*", "*", "SAT,SUN", "FRI#5", "SUNL", "1-5"]),
}
CRONS = st.tuples(*FIELDS.values()).map(" ".join)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    window=st.sampled_from(WINDOWS),
    dates=st.lists(st.tuples(st.integers(-3, 6), st.integers(0, 3)), max_size=4),
    weekdays=st.sets(st.integers(0, 6), max_size=7),
    crons=st.lists(CRONS, max_size=3),
)
@example(window=WINDOWS[0], dates=[(2, 0)], weekdays=set(), crons=[])
@example(window=WINDOWS[3], dates=[(1, 0)], weekdays=set(), crons=["* * 18 * *"])
@example(window=WINDOWS[3], dates=[(2, 5)], weekdays=set(), crons=["30-59 23 17 2 *"])
@example(window=WINDOWS[7], dates=[], weekdays=set(), crons=["* * * * 1-5", "* 0-22 * * *", "0-58 23 * * *"])
@example(window=WINDOWS[0], dates=[], weekdays=set(), crons=["59-1 * * * *", "1-58 * * * *"])  # no change at all
def test_every_minute_is_answered_as_the_wall_shows_it_in_few_steps(
    window: tuple[str, str], dates: list[tuple[int, int]], weekdays: set[int], crons: list[str]
) -> None:
    zone = ZoneInfo(window[0])
    first_s = int(datetime.fromisoformat(window[1]).timestamp())
    first_day = datetime.fromisoformat(window[1]).date()
    ranges = [(first_day + timedelta(days=n), first_day + timedelta(days=n + more)) for n, more in dates]
    calendar = CalendarDates(
        "any",
        zone_name=window[0],
        dates=ranges,
        weekdays=weekdays,
        crons=[parse(f"* {cron}") for cron in crons],
    )

    minutes = range(first_s, first_s + 3 * 86_400, 60)
    walls = [zoned(second, zone).replace(tzinfo=None) for second in minutes]
    held = [[local_matches(cron, local) for cron in crons] for local in walls]
    expected = [
        any(matched) or local.weekday() in weekdays or any(first <= local.date() <= last for first, last in ranges)
        for local, matched in zip(walls, held, strict=True)
    ]
    changes = sum(before is not after for before, after in pairwise(expected))

    def ends_at(cron: str, local: datetime) -> bool:
        """Return whether a span ends here though the next one joins it: with a partly named hour or day."""
        some_minutes, some_hours = (field != "*" for field in cron.split()[:2])
        return local.minute == 0 and (some_minutes or (some_hours and local.hour == 0))

    ends = sum(
        any(was and (not now or ends_at(cron, local)) for cron, was, now in zip(crons, before, after, strict=True))
        for local, (before, after) in zip(walls[1:], pairwise(held), strict=True)
    )
    answers = []
    at = first_s * 1000
    while at < (first_s + 3 * 86_400) * 1000:
        inside, until = calendar.covers(at)
        assert until % 60_000 == 0 or until == FOREVER_MS
        answers.append((inside, at, until))
        at = until
    for inside, since, until in answers:
        low, high = (since // 1000 - first_s) // 60, (min(until, at) // 1000 - first_s) // 60
        assert expected[low:high] == [inside] * len(expected[low:high])
    # A span of the zone may end an answer early, and so may a change that changes nothing. One answer is of nine spans
    # of expressions at most, even where each begins as the last one ends.
    assert len(answers) <= changes + 3 + ends // 9
    # Asked in no order too: what was asked before is kept, and must not matter.
    for place in range(len(minutes) - 1, 0, -37):
        inside, until = calendar.covers(minutes[place] * 1000 + 59_999)
        assert inside is expected[place]
        assert until > minutes[place] * 1000 + 59_999


@settings(max_examples=40, deadline=None)
@given(
    second=st.sampled_from(["*", "0", "*/2", "30-59", "0-29", "59-0", "1,2,4"]),
    minute=st.sampled_from(["*", "0", "*/2", "0-29", "59,0"]),
    hour=st.sampled_from(["*", "9", "23,0"]),
    start=st.integers(1_780_000_000, 1_780_200_000),
)
@example(second="*", minute="0-29", hour="*", start=1_780_000_000)  # in the middle of a minute, of an hour
@example(second="*", minute="*", hour="20,21", start=1_780_000_000)
@example(second="30-59", minute="*", hour="*", start=1_780_000_000)
def test_every_second_is_answered_by_the_fields(second: str, minute: str, hour: str, start: int) -> None:
    calendar = CalendarDates("seconds", crons=[parse(f"{second} {minute} {hour} * * *")])
    at = start * 1000
    for _ in range(8):
        inside, until = calendar.covers(at)
        if until == FOREVER_MS:
            assert (second, minute, hour) == ("*", "*", "*")
            return
        for moment in {at // 1000, (until - 1) // 1000, *range(at // 1000, min(until // 1000, at // 1000 + 100))}:
            local = datetime.fromtimestamp(moment, UTC)
            # The second's field reads as a minute's does.
            fires = local_matches(f"{second} * * * *", local.replace(minute=local.second)) and local_matches(
                f"{minute} {hour} * * *", local
            )
            assert inside is fires
        at = until


@settings(max_examples=40, deadline=None)
@given(
    days=st.lists(st.tuples(st.integers(0, 1_400), st.sampled_from([0, 0, 1, 4, 9, 120])), min_size=1, max_size=60),
    weekdays=st.sets(st.integers(0, 6), max_size=6),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/Havana"]),
)
def test_four_years_of_ranges_are_answered_day_by_day(
    days: list[tuple[int, int]], weekdays: set[int], zone: str
) -> None:
    first = date(2024, 1, 1)
    ranges = [(first + timedelta(days=n), first + timedelta(days=n + more)) for n, more in days]
    calendar = CalendarDates("years", zone_name=zone, dates=ranges, weekdays=weekdays)
    expected = {
        day: day.weekday() in weekdays or any(low <= day <= high for low, high in ranges)
        for day in (first + timedelta(days=n) for n in range(1_540))
    }
    noons = {
        day: int(datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(zone)).timestamp()) for day in expected
    }
    steps, until = 0, 0
    inside = False
    for day, noon in noons.items():
        while until <= noon * 1000:
            inside, until = calendar.covers(max(until, noons[first] * 1000))
            steps += 1
        assert inside is expected[day]
    runs = sum(expected[day] is not expected[day + timedelta(days=1)] for day in list(expected)[:-1])
    assert steps <= runs + 2


# --- the edges --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "calendar",
    [
        CalendarDates("a", dates=[(date(2026, 1, 1), date(2026, 12, 31))]),
        CalendarDates("b", zone_name="Europe/Berlin", dates=[(date(2026, 1, 1), date(2026, 12, 31))], weekdays=[0]),
        CalendarDates("c", crons=[parse("* * * * * *")]),
        CalendarDates("d", zone_name="America/Havana", crons=[parse("* * * * 1-11 *")], weekdays=[3]),
        CalendarDates("e", weekdays=range(7)),
        CalendarDates("f", dates=[(date(2026, 1, 1) + timedelta(days=n),) * 2 for n in range(365)]),
        CalendarDates(
            "g", dates=[(date(2026, 1, 1) + timedelta(days=n),) * 2 for n in range(365) if n % 7 not in (2, 3)],
            weekdays=[5, 6],
        ),
    ],
    ids=lambda calendar: calendar.name,
)  # fmt: skip
def test_a_year_of_excluded_days_is_one_answer(calendar: CalendarDates) -> None:
    inside, until = calendar.covers(instant("2026-01-02T00:00:00Z"))
    assert inside
    assert until >= instant("2026-11-30T00:00:00Z")


def test_a_calendar_of_past_dates_is_over_for_good() -> None:
    past = CalendarDates("past", dates=[(date(2000, 1, 1), date(2000, 12, 31))])
    assert past.covers(instant("2026-01-01T00:00:00Z")) == (False, FOREVER_MS)
    assert CalendarDates("none").covers(0) == (False, FOREVER_MS)
    assert CalendarDates("never", crons=[parse("* * * 30 2 *")]).covers(0) == (False, FOREVER_MS)


@pytest.mark.parametrize("at", [-(10**17), -62_135_596_800_000, 253_402_300_799_999, 10**18])
def test_time_ends_without_an_error(at: int) -> None:
    for calendar in (
        CalendarDates(
            "a", zone_name="America/New_York", dates=[(date.min, date(1, 5, 5)), (date(9999, 1, 1), date.max)]
        ),
        CalendarDates("b", weekdays=[2], crons=[parse("*/2 * * * * *"), parse("* * * 29 2 *")]),
        CalendarDates("c", weekdays=range(7)),
    ):
        _, until = calendar.covers(at)
        assert until > at


def test_calendars_with_the_same_dates_are_equal_and_cheap_to_compare() -> None:
    first = CalendarDates("a", dates=[(date(2026, 1, 1), date(2026, 1, 2)), (date(2026, 1, 3), date(2026, 1, 3))])
    second = CalendarDates("a", dates=[(date(2026, 1, 2), date(2026, 1, 3)), (date(2026, 1, 1), date(2026, 1, 1))])
    assert first == second
    assert hash(first) == hash(second)
    first.covers(0)
    assert first == second
    others = [
        CalendarDates("b", dates=[(date(2026, 1, 1), date(2026, 1, 3))]),
        CalendarDates("a", dates=[(date(2026, 1, 1), date(2026, 1, 4))]),
        CalendarDates("a", dates=[(date(2026, 1, 1), date(2026, 1, 3))], zone_name="Asia/Shanghai"),
        CalendarDates("a", dates=[(date(2026, 1, 1), date(2026, 1, 3))], weekdays=[1]),
        CalendarDates("a", dates=[(date(2026, 1, 1), date(2026, 1, 3))], crons=[parse("@daily")]),
    ]
    assert all(first != other for other in others)


def test_a_calendar_of_an_unknown_zone_cannot_be_built() -> None:
    with pytest.raises(UnknownZoneError):
        CalendarDates("a", zone_name="Mars/Olympus")
