"""Daily intervals against the wall clock: where spans begin and end, and what a change of the clock does to them."""

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.engine.wall_clock import ZONES, stretches

from tickwheel_operator.engine.cron import UnknownZoneError
from tickwheel_operator.engine.triggers import CronTrigger, DailyIntervalTrigger, Trigger

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def daily(every: int, start: str, end: str, days: str = "", zone: str = "UTC") -> DailyIntervalTrigger:
    """Return the trigger of an interval in minutes between two times of day."""
    mask = sum(1 << WEEKDAYS.index(day) for day in days.split()) if days else 127
    return DailyIntervalTrigger(every * MINUTE_MS, minutes(start) * MINUTE_MS, minutes(end) * MINUTE_MS, mask, zone)


def minutes(time_of_day: str) -> int:
    hour, minute = time_of_day.split(":")
    return int(hour) * 60 + int(minute)


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def shown(trigger: Trigger, zone: str, after: str, until: str) -> list[str]:
    """Return the instants in (after, until] as the wall shows them, with the offset."""
    found = []
    at = trigger.next_after(instant(after))
    while at is not None and at <= instant(until):
        found.append(datetime.fromtimestamp(at / 1000, ZoneInfo(zone)).isoformat())
        at = trigger.next_after(at)
    return found


@lru_cache
def minutes_of_week(trigger: DailyIntervalTrigger) -> frozenset[tuple[int, int, int]]:
    """Return the weekdays, hours and minutes that the wall shows in a span, by what `API.md` says of each minute."""
    every, start, end = (value // MINUTE_MS for value in (trigger.every_ms, trigger.from_ms, trigger.to_ms))
    length = end - start if end > start else end - start + 1440

    def matches(weekday: int, minute: int) -> bool:
        for back in range(3):  # a span from 24:00 to 23:59 ends the day after the next
            since = minute + 1440 * back - start
            if trigger.days >> (weekday - back) % 7 & 1 and 0 <= since < length and since % every == 0:
                return True
        return False

    return frozenset((day, at // 60, at % 60) for day in range(7) for at in range(1440) if matches(day, at))


SPANS = [
    (15, "08:00", "18:00", ""),
    (15, "00:00", "24:00", ""),
    (60, "00:30", "06:00", ""),
    (20, "22:00", "04:00", "Fri Sat"),
    (7, "23:30", "23:29", "Sat Sun"),
    (45, "01:00", "03:00", ""),
    (90, "00:00", "05:00", ""),
    (360, "01:30", "24:00", ""),
    (1440, "02:30", "03:00", ""),
    (1440, "00:00", "24:00", "Sun"),
    (61, "23:00", "02:00", ""),
    (30, "24:00", "03:00", "Sat"),
    (120, "02:00", "02:30", ""),
]


@pytest.mark.parametrize(("zone", "first_year", "last_year"), ZONES, ids=lambda value: str(value))
def test_around_every_change_of_the_clock_a_daily_interval_fires_as_the_wall_says(
    zone: str, first_year: int, last_year: int
) -> None:
    triggers = [(daily(*span, zone=zone), minutes_of_week(daily(*span))) for span in SPANS]
    for hours in stretches(zone, first_year, last_year):
        for trigger, times in triggers:
            expected = hours.expected(
                follows_clock=trigger.every_ms <= HOUR_MS,
                matches=lambda local, times=times: (local.weekday(), local.hour, local.minute) in times,  # type: ignore[misc]
            )
            found = []
            at = trigger.next_after(hours.first_ms)
            while at is not None and at <= hours.last_ms:
                found.append(at)
                at = trigger.next_after(at)
            assert found == expected, f"{trigger.describe()} near {hours.first_ms}"
            assert trigger.count_between(hours.first_ms, hours.last_ms, 10**6) == len(expected)
            for odd in range(hours.first_ms + 1_234_567, hours.last_ms, 9_999_999):
                earlier = bisect_right(expected, odd)
                assert trigger.last_at_or_before(odd, hours.first_ms) == (expected[earlier - 1] if earlier else None)
                assert trigger.count_between(odd, hours.last_ms, 10**6) == len(expected) - earlier


def test_the_end_of_the_span_is_no_instant() -> None:
    assert shown(daily(15, "08:00", "09:00"), "UTC", "2026-06-01T00:00:00Z", "2026-06-02T08:00:00Z") == [
        "2026-06-01T08:00:00+00:00",
        "2026-06-01T08:15:00+00:00",
        "2026-06-01T08:30:00+00:00",
        "2026-06-01T08:45:00+00:00",
        "2026-06-02T08:00:00+00:00",
    ]


def test_the_count_begins_anew_each_day() -> None:
    hours = [
        text[8:13] for text in shown(daily(420, "06:00", "24:00"), "UTC", "2026-06-01T00:00Z", "2026-06-03T00:00Z")
    ]
    assert hours == ["01T06", "01T13", "01T20", "02T06", "02T13", "02T20"]


def test_a_span_past_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    # 5 June 2026 is a Friday.
    night = daily(60, "22:00", "02:00", "Fri")
    assert [text[8:16] for text in shown(night, "UTC", "2026-06-04T00:00:00Z", "2026-06-12T00:00:00Z")] == [
        "05T22:00",
        "05T23:00",
        "06T00:00",
        "06T01:00",
    ]


def test_every_quarter_of_an_hour_goes_on_through_a_repeated_hour() -> None:
    quarters = daily(15, "01:30", "03:15", zone="Europe/Berlin")
    night = shown(quarters, "Europe/Berlin", "2026-10-25T00:00:00+02:00", "2026-10-25T12:00:00+01:00")
    assert [text[11:] for text in night] == [
        "01:30:00+02:00", "01:45:00+02:00",
        "02:00:00+02:00", "02:15:00+02:00", "02:30:00+02:00", "02:45:00+02:00",
        "02:00:00+01:00", "02:15:00+01:00", "02:30:00+01:00", "02:45:00+01:00",
        "03:00:00+01:00",
    ]  # fmt: skip


def test_every_quarter_of_an_hour_has_no_burst_after_a_gap() -> None:
    quarters = daily(15, "01:30", "03:15", zone="Europe/Berlin")
    night = shown(quarters, "Europe/Berlin", "2026-03-29T00:00:00+01:00", "2026-03-29T12:00:00+02:00")
    assert [text[11:] for text in night] == ["01:30:00+01:00", "01:45:00+01:00", "03:00:00+02:00"]


def test_every_six_hours_names_four_times_that_each_come_once() -> None:
    times = daily(360, "02:30", "24:00", zone="Europe/Berlin")
    assert [
        text[11:] for text in shown(times, "Europe/Berlin", "2026-03-29T00:00:00+01:00", "2026-03-29T23:00:00+02:00")
    ] == ["03:00:00+02:00", "08:30:00+02:00", "14:30:00+02:00", "20:30:00+02:00"]
    assert [
        text[11:] for text in shown(times, "Europe/Berlin", "2026-10-25T00:00:00+02:00", "2026-10-25T23:00:00+01:00")
    ] == ["02:30:00+02:00", "08:30:00+01:00", "14:30:00+01:00", "20:30:00+01:00"]


def test_a_gap_at_midnight_moves_the_first_time_of_the_day_and_keeps_its_weekday() -> None:
    # Sunday, 8 March 2026 begins at 01:00 in Havana.
    sundays = daily(1440, "00:00", "24:00", "Sun", "America/Havana")
    assert shown(sundays, "America/Havana", "2026-03-02T00:00:00-05:00", "2026-03-15T00:00:00-04:00") == [
        "2026-03-08T01:00:00-04:00",
        "2026-03-15T00:00:00-04:00",
    ]


@settings(max_examples=60, deadline=None)
@given(
    every=st.sampled_from([1, 5, 15, 30, 60]),
    first=st.integers(0, 22),
    hours=st.integers(1, 23),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/Havana"]),
    start=st.integers(1_577_836_800_000, 1_893_456_000_000),
)
@example(every=60, first=0, hours=2, zone="America/Havana", start=1_696_568_400_000)  # midnight comes twice
@example(every=60, first=2, hours=3, zone="Australia/Lord_Howe", start=1_790_640_000_000)  # 02:00 does not come
def test_within_a_day_it_is_the_cron_expression_with_that_step(
    every: int, first: int, hours: int, zone: str, start: int
) -> None:
    last = min(first + hours, 24)
    interval = DailyIntervalTrigger(every * MINUTE_MS, first * HOUR_MS, last * HOUR_MS, 127, zone)
    # A cron of whole hours between two others names fixed times, so it is asked for the half hours too.
    cron = CronTrigger(f"*/{min(every, 30)} {first}-{last - 1} * * *", zone)
    at = step = start
    steps = 0
    for _ in range(60):
        at = interval.next_after(at) or 0
        while step < at:
            step = cron.next_after(step) or at + 1
            steps += 1
            if every < 60 or datetime.fromtimestamp(step / 1000, ZoneInfo(zone)).minute == 0:
                break
        assert step == at
    assert interval.count_between(start, at, 10**6) == 60
    assert cron.count_between(start, at, 10**6) == steps


@settings(max_examples=150, deadline=None)
@given(
    every_ms=st.one_of(st.integers(10, 5_000), st.integers(5_000, DAY_MS)),
    from_ms=st.integers(0, DAY_MS // 1000).map(lambda second: second * 1000),
    to_ms=st.integers(0, DAY_MS // 1000).map(lambda second: second * 1000),
    days=st.integers(1, 127),
    start=st.integers(-(10**12), 10**13),
    span=st.integers(0, 3 * DAY_MS),
)
def test_in_utc_the_instants_are_those_of_a_walk_from_day_to_day(
    every_ms: int, from_ms: int, to_ms: int, days: int, start: int, span: int
) -> None:
    if from_ms == to_ms or (from_ms, to_ms) == (DAY_MS, 0):
        return
    if every_ms < 5_000:
        span //= 1_000
    trigger = DailyIntervalTrigger(every_ms, from_ms, to_ms, days)
    first = datetime.fromtimestamp(start / 1000, UTC).date() - timedelta(days=3)
    expected: list[int] = []
    for number in range(span // DAY_MS + 8):
        day = first + timedelta(days=number)
        if days >> day.weekday() & 1:
            midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
            end = midnight + to_ms + (DAY_MS if to_ms <= from_ms else 0)
            # By multiplication, and only near the span: some of these have millions of instants.
            low = max(0, (start - midnight - from_ms) // every_ms)
            high = min(end, start + span + 1)
            expected += [at for at in range(midnight + from_ms + low * every_ms, high, every_ms) if at > start]
    found = []
    at = trigger.next_after(start)
    while at is not None and at <= start + span:
        found.append(at)
        at = trigger.next_after(at)
    assert found == expected
    assert trigger.count_between(start, start + span, 10**9) == len(expected)
    assert trigger.last_at_or_before(start + span, start) == (expected[-1] if expected else None)


def test_a_year_of_missed_instants_is_counted_without_a_walk() -> None:
    trigger = DailyIntervalTrigger(10, 0, DAY_MS, 127, "Europe/Berlin")
    year = (instant("2026-01-01T00:00:00+01:00"), instant("2027-01-01T00:00:00+01:00"))
    assert trigger.count_between(*year, 10**12) == 365 * DAY_MS // 10
    assert trigger.last_at_or_before(year[1], year[0]) == year[1]


def test_a_daily_interval_says_what_it_is() -> None:
    assert daily(15, "08:00", "18:00", "Mon Wed", "Asia/Shanghai").describe() == (
        "every 15m from 08:00 to 18:00 on Mon, Wed (Asia/Shanghai)"
    )
    assert DailyIntervalTrigger(500, 30_000, DAY_MS).describe() == "every 500ms from 00:00:30 to 24:00 (UTC)"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ((0, 0, 1_000), "1 ms or more"),
        ((10, 1_000, 1_000), "two different times"),
        ((10, DAY_MS, 0), "two different times"),
        ((10, -1, 1_000), "two different times"),
        ((10, 0, DAY_MS + 1), "two different times"),
        ((10, 0, 1_000, 0), "a bit for each weekday"),
        ((10, 0, 1_000, 128), "a bit for each weekday"),
    ],
)
def test_an_interval_that_makes_no_sense_cannot_be_built(fields: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DailyIntervalTrigger(*fields)  # type: ignore[arg-type]
    with pytest.raises(UnknownZoneError):
        DailyIntervalTrigger(10, 0, 1_000, 127, "Mars/Olympus")
