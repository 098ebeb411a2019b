"""The search for instants against three other ways to find them.

The first is a brute force that knows nothing of masks, spans or leaps: it walks over wall-clock minutes,
asks `zoneinfo` about each and reads each field of the expression again each time. The second is croniter,
where both dialects agree. The third is the schedule itself, backwards and by count.
"""

import calendar
import random
from bisect import bisect_left, bisect_right
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from croniter import croniter
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.unit.engine.cron_reading import WEEKDAYS, local_matches, names_a_rhythm

from tickwheel_operator.engine.cron import parse
from tickwheel_operator.engine.cron.zones import Timeline

MINUTE = timedelta(minutes=1)

# --- the brute force --------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def clock_shows(zone: ZoneInfo, start: datetime, days: int) -> list[tuple[datetime, datetime]]:
    """Return every minute from `start` on, with what the clock on the wall shows then."""
    moments = (start + MINUTE * n for n in range(days * 1440))
    return [(moment, moment.astimezone(zone).replace(tzinfo=None, fold=0)) for moment in moments]


@lru_cache(maxsize=2)
def fixed_times(zone: ZoneInfo, start: datetime, days: int) -> list[tuple[datetime, datetime]]:
    """Return every local minute, shown or skipped, with the minute in which a fixed time of it fires."""
    shown = clock_shows(zone, start, days)
    first: dict[datetime, datetime] = {}
    for moment, local in shown:
        first.setdefault(local, moment)
    local, end = shown[0][1], max(first)
    times = []
    while local <= end:
        times.append((first.get(local) or next(moment for moment, later in shown if later > local), local))
        local += MINUTE
    return times


def brute_force(expression: str, zone: ZoneInfo, start: datetime, days: int) -> list[int]:
    """Return all instants from `start` (UTC) on, for some days, in milliseconds."""
    minute, hour = expression.split()[:2]
    follows = names_a_rhythm(minute, 0, 59) or names_a_rhythm(hour, 0, 23)
    candidates = clock_shows(zone, start, days) if follows else fixed_times(zone, start, days)
    found = {moment for moment, local in candidates if local_matches(expression, local)}
    return sorted(int(moment.timestamp()) * 1000 for moment in found)


# --- expressions ------------------------------------------------------------------------------------------


def values(low: int, high: int, names: list[str] | None = None) -> st.SearchStrategy[str]:
    plain = st.integers(low, high).map(lambda n: names[n] if names and n % 2 else str(n))
    ranges = st.tuples(plain, plain).map("-".join)
    steps = st.integers(1, high + 2).map(str)
    stepped = st.tuples(st.one_of(st.just("*"), plain, ranges), steps).map("/".join)
    item = st.one_of(plain, plain, ranges, stepped, st.sampled_from(["*", "*/1"]))
    return st.one_of(st.lists(item, min_size=1, max_size=3).map(",".join), st.just("*"))


MONTHDAYS = st.one_of(
    st.just("*"),
    values(1, 31),
    st.lists(
        st.one_of(
            st.just("L"),
            st.just("LW"),
            st.integers(1, 30).map("L-{}".format),
            st.integers(1, 31).map("{}W".format),
            st.integers(1, 31).map(str),
        ),
        min_size=1,
        max_size=3,
    ).map(",".join),
)
WEEK = st.one_of(
    st.just("*"),
    values(0, 6, WEEKDAYS),
    st.lists(
        st.one_of(
            st.sampled_from(WEEKDAYS).map("{}L".format),
            st.tuples(st.sampled_from(WEEKDAYS), st.integers(1, 5)).map(lambda pair: f"{pair[0]}#{pair[1]}"),
        ),
        min_size=1,
        max_size=2,
    ).map(",".join),
)
EXPRESSIONS = st.tuples(values(0, 59), values(0, 23), MONTHDAYS, values(1, 12), WEEK).map(" ".join)
# Small hours, where clocks change, on any day: so that the rule for gaps and overlaps is met each time.
SMALL_HOURS = st.tuples(values(0, 59), values(0, 4), st.just("*"), st.just("*"), st.just("*")).map(" ".join)

# For random expressions; `test_cron_transitions` walks over every change of 25 zones with chosen ones.
CHANGES = [
    ("America/New_York", "2026-03-07"),
    ("America/New_York", "2026-10-31"),
    ("Australia/Lord_Howe", "2026-04-03"),
    ("Australia/Lord_Howe", "2026-10-02"),
    ("Africa/Casablanca", "2026-02-14"),
    ("America/Havana", "2026-03-07"),
    ("America/Havana", "2026-10-31"),
    ("Pacific/Apia", "2011-12-28"),
    ("Asia/Shanghai", "1991-04-13"),
    ("Antarctica/Troll", "2026-03-28"),
    ("Asia/Kathmandu", "1985-12-31"),
    ("Pacific/Kwajalein", "1993-08-20"),
]


@pytest.mark.parametrize(("zone_name", "day"), CHANGES, ids=lambda value: value)
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(expression=st.one_of(SMALL_HOURS, EXPRESSIONS))
@example(expression="30 2 * * *")
@example(expression="0 0 * * *")
@example(expression="*/7 * * * *")
@example(expression="0 0-23 * * *")
@example(expression="0 */24 * * *")
@example(expression="*/60 2 * * *")
@example(expression="30 */1 * * *")
def test_instants_around_a_change_of_the_clock_are_those_of_the_brute_force(
    zone_name: str, day: str, expression: str
) -> None:
    zone = ZoneInfo(zone_name)
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    # The first and last hours of the walk are left out: a gap or a first pass may lie outside of it.
    expected = brute_force(expression, zone, start, 3)
    first, last = (int((start + timedelta(hours=hours)).timestamp()) * 1000 for hours in (3, 69))
    expected = [instant for instant in expected if first < instant <= last]
    schedule = parse(expression)

    assert list(schedule.iterate(first, last, zone)) == expected
    assert schedule.count(first, last, zone) == len(expected)
    for instant in range(first, last, 3_333_333):  # from any instant, in gaps and second passes too
        found = schedule.next_after(instant, zone)
        following = expected[bisect_right(expected, instant) :]
        assert found == following[0] if following else found is None or found > last
        latest = schedule.latest_until(instant, zone)
        preceding = expected[: bisect_right(expected, instant)]
        assert latest == preceding[-1] if preceding else latest is None or latest <= first
        assert schedule.count(instant, last, zone) == len(following)


@settings(max_examples=80, deadline=None)
@given(
    day_fields=st.tuples(MONTHDAYS, values(1, 12), WEEK).map(" ".join),
    start=st.dates(date(1970, 1, 1), date(2200, 1, 1)),
)
def test_days_over_years_are_those_of_the_brute_force(day_fields: str, start: date) -> None:
    expression = f"17 4 {day_fields}"
    days = [start + timedelta(days=n) for n in range(800)]
    moments = [datetime(day.year, day.month, day.day, 4, 17, tzinfo=UTC) for day in days]
    expected = [
        int(moment.timestamp()) * 1000 for moment in moments if local_matches(expression, moment.replace(tzinfo=None))
    ]
    after, until = int(moments[0].timestamp()) * 1000 - 1, int(moments[-1].timestamp()) * 1000
    schedule = parse(expression)
    assert list(schedule.iterate(after, until, UTC)) == expected
    assert schedule.count(after, until, UTC) == len(expected)


@settings(max_examples=200, deadline=None)
@given(expression=EXPRESSIONS, second=values(0, 59), zone_name=st.sampled_from(CHANGES), data=st.data())
def test_backwards_forwards_and_by_count_agree(
    expression: str, second: str, zone_name: tuple[str, str], data: st.DataObject
) -> None:
    zone = ZoneInfo(zone_name[0])
    schedule = parse(f"{second} {expression}")
    start = data.draw(st.integers(0, 4_000_000_000_000))
    instants: list[int] = []
    instant: int | None = start
    while len(instants) < 50 and (instant := schedule.next_after(instant or 0, zone)) is not None:
        instants.append(instant)
    assert all(earlier < later for earlier, later in pairwise(instants))
    assert all(instant % 1000 == 0 and instant > start for instant in instants)
    for count, instant in enumerate(instants, 1):
        assert schedule.count(start, instant, zone) == count
        assert schedule.count(start, instant - 1, zone) == count - 1
        assert schedule.latest_until(instant, zone) == instant
        earlier = schedule.latest_until(instant - 1, zone)
        assert earlier == instants[count - 2] if count > 1 else earlier is None or earlier <= start


CRONITER_DAYS = st.one_of(
    st.tuples(values(1, 31).filter(lambda text: "*" not in text), st.just("*")),
    st.tuples(st.just("*"), values(0, 6).filter(lambda text: "*" not in text)),
    st.tuples(st.integers(1, 31).map(str), st.integers(0, 6).map(str)),
    st.tuples(st.just("L"), st.just("*")),
    st.tuples(st.just("*"), st.tuples(st.integers(0, 6), st.integers(1, 5)).map(lambda p: f"{p[0]}#{p[1]}")),
    st.tuples(st.just("*"), st.integers(0, 6).map("L{}".format)),
)


@settings(max_examples=200, deadline=None)
@given(
    second=st.one_of(st.just("0"), st.just("*/10"), st.integers(0, 59).map(str)),
    minute=st.one_of(st.just("*"), st.just("*/7"), st.integers(0, 59).map(str), st.just("10-20")),
    hour=st.one_of(st.just("*"), st.just("*/5"), st.integers(0, 23).map(str), st.just("9,17"), st.just("22-3")),
    days=CRONITER_DAYS,
    start=st.integers(0, 4_000_000_000),
)
def test_in_utc_croniter_finds_the_same_instants(
    second: str, minute: str, hour: str, days: tuple[str, str], start: int
) -> None:
    theirs_weekday = days[1]
    ours_weekday = f"{theirs_weekday[1]}L" if theirs_weekday.startswith("L") else theirs_weekday
    wide = any("/" in day or "-" in day for day in days)
    if wide:  # croniter reads steps over a wrapping range, and steps wider than the field, differently
        return
    theirs = croniter(
        f"{second} {minute} {hour} {days[0]} * {theirs_weekday}",
        datetime.fromtimestamp(start, UTC),
        second_at_beginning=True,
    )
    instant = start * 1000
    for _ in range(8):
        expected = theirs.get_next(datetime)
        found = parse(f"{second} {minute} {hour} {days[0]} * {ours_weekday}").next_after(instant, UTC)
        assert found == int(expected.timestamp()) * 1000
        instant = found


# --- the edges --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone_name", sorted(random.Random(7).sample(sorted(available_timezones()), 60)))
def test_spans_have_the_offsets_that_the_zone_has(zone_name: str) -> None:
    zone = ZoneInfo(zone_name)
    timeline = Timeline(zone)
    source = random.Random(zone_name)
    for _ in range(300):
        second = source.randrange(-2_000_000_000, 4_000_000_000)
        span = timeline.span_at(second)
        assert span.start <= second < span.end
        for at, offset in (
            (second, span.offset),
            (span.start, span.offset),
            (span.end - 1, span.offset),
            (span.start - 1, span.offset_before),
        ):
            local = datetime.fromtimestamp(at, zone)
            assert local.utcoffset() == timedelta(seconds=offset)


def test_a_leap_day_is_found_across_a_century_without_one() -> None:
    after = int(datetime(2096, 3, 1, tzinfo=UTC).timestamp()) * 1000
    expected = int(datetime(2104, 2, 29, tzinfo=UTC).timestamp()) * 1000
    assert parse("0 0 29 2 *").next_after(after, UTC) == expected


def test_a_fifth_friday_of_february_is_found_across_forty_years() -> None:
    schedule = parse("0 0 * 2 FRI#5")
    years: list[int] = []
    instant = 0
    while len(years) < 12:
        found = schedule.next_after(instant, ZoneInfo("Europe/Berlin"))
        assert found is not None
        instant = found
        years.append(datetime.fromtimestamp(found / 1000, ZoneInfo("Europe/Berlin")).year)
    assert (
        years
        == [year for year in range(1970, 2500) if calendar.isleap(year) and date(year, 2, 29).isoweekday() == 5][:12]
    )


def test_an_instant_between_two_seconds_counts_as_before_the_next() -> None:
    schedule = parse("* * * * * *")
    assert schedule.next_after(1_000, UTC) == 2_000
    assert schedule.next_after(1_999, UTC) == 2_000
    assert schedule.next_after(-1, UTC) == 0
    assert schedule.latest_until(1_999, UTC) == 1_000
    assert schedule.latest_until(2_000, UTC) == 2_000
    assert schedule.latest_until(-1, UTC) == -1_000


@pytest.mark.parametrize("zone_name", ["UTC", "Asia/Shanghai", "America/New_York", "Pacific/Kiritimati"])
@pytest.mark.parametrize("expression", ["* * * * * *", "0 0 * * *", "0 0 29 2 *", "*/5 2 * * MON#1"])
def test_time_ends_without_an_error(expression: str, zone_name: str) -> None:
    schedule, zone = parse(expression), ZoneInfo(zone_name)
    last = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) * 1000
    first = int(datetime(1, 1, 1, tzinfo=UTC).timestamp()) * 1000
    for far in (last, last * 1000):
        assert schedule.next_after(far, zone) is None
        assert (schedule.latest_until(far, zone) or 0) > first
    for early in (first, first * 1000):
        assert schedule.latest_until(early, zone) is None
        assert (schedule.next_after(early, zone) or 0) < 0
    near_end = [schedule.next_after(last - days * 86_400_000, zone) for days in range(0, 400, 7)]
    assert all(instant is None or instant < last for instant in near_end)


def test_searches_from_the_same_instants_need_no_order() -> None:
    # The zone's spans are kept from one search to the next; what was asked before must not matter.
    zone = ZoneInfo("Europe/Berlin")
    schedule = parse("30 2 * * *")
    instants = list(schedule.iterate(1_760_000_000_000, 1_860_000_000_000, zone))
    shuffled = random.Random(3).sample(instants, len(instants))
    for instant in shuffled:
        position = bisect_left(instants, instant)
        assert schedule.next_after(instant - 1, zone) == instant
        if position:
            assert schedule.latest_until(instant - 1, zone) == instants[position - 1]
