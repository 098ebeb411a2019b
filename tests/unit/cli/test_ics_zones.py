"""The days of an iCalendar file when its date properties are written in different ways: as dates, in UTC, in a zone.

The oracle is a rule of dateutil over local midnights, and nothing else: what a publisher means. Each property of the
file is then written in a form of its own, as exporters do, and must change nothing.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import DAILY, WEEKLY, rrule  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from tickwheel_operator.cli.ics import IcsError, days_of

ZONES = ("Europe/London", "Asia/Shanghai", "America/New_York", "Asia/Kolkata", "UTC")
FIRST, LAST = date(2026, 1, 1), date(2029, 12, 31)
DAY = timedelta(days=1)


def calendar(*events: list[str], head: str = "") -> str:
    inner = "".join(
        "\n".join(["BEGIN:VEVENT", "DTSTAMP:20260101T000000Z", "UID:1@test", "SUMMARY:Closed", *event, "END:VEVENT\n"])
        for event in events
    )
    return f"BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:-//test//EN\n{head}{inner}END:VCALENDAR\n"


def days(text: str, zone: str | None) -> list[str]:
    found = days_of(text, FIRST, LAST, zone)
    assert found.timed == {}
    return [str(day) for day in sorted(found.days)]


def written(name: str, day: date, zone: str, form: str) -> str:
    """A property that names the day, which begins at midnight of the zone."""
    midnight = datetime.combine(day, time(), tzinfo=ZoneInfo(zone))
    match form:
        case "date":
            return f"{name};VALUE=DATE:{day:%Y%m%d}"
        case "utc":
            return f"{name}:{midnight.astimezone(UTC):%Y%m%dT%H%M%SZ}"
        case "floating":
            return f"{name}:{midnight:%Y%m%dT%H%M%S}"
        case _:
            return f"{name};TZID={zone}:{midnight:%Y%m%dT%H%M%S}"


def until(day: date, zone: str, form: str) -> str:
    midnight = datetime.combine(day, time(), tzinfo=ZoneInfo(zone))
    evening = datetime.combine(day, time(23, 59, 59), tzinfo=ZoneInfo(zone))
    match form:
        case "date":
            return f"{day:%Y%m%d}"
        case "utc":
            return f"{midnight.astimezone(UTC):%Y%m%dT%H%M%SZ}"
        case "utc evening":
            return f"{evening.astimezone(UTC):%Y%m%dT%H%M%SZ}"
        case _:
            return f"{midnight:%Y%m%dT%H%M%S}"


FORMS = st.sampled_from(["date", "utc", "floating", "zone"])


@settings(max_examples=150, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    whole=st.booleans(),
    begin=st.dates(date(2026, 1, 1), date(2028, 1, 1)),
    weekly=st.booleans(),
    count=st.integers(1, 60),
    until_form=st.sampled_from(["date", "utc", "utc evening", "floating"]),
    excluded=st.lists(st.tuples(st.integers(0, 59), FORMS), max_size=3),
    added=st.lists(st.tuples(st.integers(1, 400), FORMS), max_size=2),
    moved=st.one_of(st.none(), st.tuples(st.integers(0, 59), st.integers(401, 600), FORMS)),
)
def test_how_a_date_is_written_changes_no_day(
    zone: str,
    whole: bool,
    begin: date,
    weekly: bool,
    count: int,
    until_form: str,
    excluded: list[tuple[int, str]],
    added: list[tuple[int, str]],
    moved: tuple[int, int, str] | None,
) -> None:
    rule = rrule(WEEKLY if weekly else DAILY, dtstart=datetime.combine(begin, time()), count=count)
    regular = [moment.date() for moment in rule]
    form = "date" if whole else "zone"
    lines = [
        written("DTSTART", begin, zone, form),
        written("DTEND", begin + DAY, zone, form),
        f"RRULE:FREQ={'WEEKLY' if weekly else 'DAILY'};UNTIL={until(regular[-1], zone, until_form)}",
    ]
    expected = set(regular)
    for later, how in added:
        lines.append(written("RDATE", begin + DAY * later, zone, how))
        expected.add(begin + DAY * later)
    for place, how in excluded:
        day = regular[place % len(regular)]
        lines.append(written("EXDATE", day, zone, how))
        expected.discard(day)
    events = [lines]
    if moved is not None:
        place, later, how = moved
        day = regular[place % len(regular)]
        expected.discard(day)
        expected.add(begin + DAY * later)
        events.append(
            [
                written("RECURRENCE-ID", day, zone, how),
                written("DTSTART", begin + DAY * later, zone, form),
                written("DTEND", begin + DAY * (later + 1), zone, form),
            ]
        )
    assert days(calendar(*events), zone) == [str(day) for day in sorted(expected) if FIRST <= day <= LAST]


@pytest.mark.parametrize(
    ("zone", "end", "last"),
    [
        ("Europe/London", "20281019T230000Z", "2028-10-20"),  # midnight of the 20th, in summer time
        ("Europe/London", "20281020T225959Z", "2028-10-20"),
        ("Asia/Shanghai", "20281019T160000Z", "2028-10-20"),
        ("America/New_York", "20281020T040000Z", "2028-10-20"),
        ("America/New_York", "20281021T035959Z", "2028-10-20"),  # still the 20th there
        ("America/New_York", "20281020T235959", "2028-10-20"),
        ("America/New_York", "20281020", "2028-10-20"),
    ],
)
def test_an_all_day_rule_ends_on_the_day_that_the_zone_shows(zone: str, end: str, last: str) -> None:
    lines = ["DTSTART;VALUE=DATE:20281016", "DTEND;VALUE=DATE:20281017", f"RRULE:FREQ=DAILY;UNTIL={end}"]
    assert days(calendar(lines), zone)[-1] == last
    assert days(calendar(lines, head=f"X-WR-TIMEZONE:{zone}\n"), None)[-1] == last


VTIMEZONE = """BEGIN:VTIMEZONE
TZID:Europe/Berlin
BEGIN:STANDARD
DTSTART:19701025T030000
RRULE:FREQ=YEARLY;BYMONTH=10;BYDAY=-1SU
TZOFFSETFROM:+0200
TZOFFSETTO:+0100
END:STANDARD
BEGIN:DAYLIGHT
DTSTART:19700329T020000
RRULE:FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU
TZOFFSETFROM:+0100
TZOFFSETTO:+0200
END:DAYLIGHT
END:VTIMEZONE
"""


def test_the_only_zone_that_a_file_defines_is_the_one_that_it_is_for() -> None:
    lines = ["DTSTART;VALUE=DATE:20280701", "RRULE:FREQ=DAILY;UNTIL=20280702T220000Z"]
    found = days_of(calendar(lines, head=VTIMEZONE), FIRST, LAST, None)
    assert found.zone == "Europe/Berlin"
    assert max(found.days) == date(2028, 7, 3)
    two = VTIMEZONE + VTIMEZONE.replace("Europe/Berlin", "Europe/London")
    assert days_of(calendar(lines, head=two), FIRST, LAST, None).zone == ""


def test_a_zone_of_the_files_own_is_read_by_its_rules() -> None:
    head = VTIMEZONE.replace("TZID:Europe/Berlin", "TZID:Head office")
    lines = [
        "DTSTART;TZID=Head office:20280701T000000",
        "DTEND;TZID=Head office:20280702T000000",
        "RRULE:FREQ=DAILY;UNTIL=20280703T220000Z",
        "EXDATE:20280701T220000Z",
    ]
    assert days(calendar(lines, head=head), "UTC") == ["2028-07-01", "2028-07-03", "2028-07-04"]


def test_a_rule_of_a_time_in_utc_counts_its_weekdays_in_utc() -> None:
    # Monday 16:00 in UTC is the beginning of Tuesday in Shanghai.
    lines = ["DTSTART:20280703T160000Z", "DTEND:20280704T160000Z", "RRULE:FREQ=WEEKLY;BYDAY=MO;COUNT=3"]
    assert days(calendar(lines), "Asia/Shanghai") == ["2028-07-04", "2028-07-11", "2028-07-18"]


def test_an_end_in_another_zone_is_read_by_the_clock_of_the_beginning() -> None:
    lines = ["DTSTART;TZID=Asia/Shanghai:20280704T000000", "DTEND:20280705T160000Z"]
    assert days(calendar(lines), "UTC") == ["2028-07-04", "2028-07-05"]


def test_a_period_among_the_added_dates_has_its_own_length() -> None:
    lines = [
        "DTSTART;TZID=Asia/Shanghai:20280704T000000",
        "DURATION:P1D",
        "RDATE;TZID=Asia/Shanghai;VALUE=PERIOD:20280801T000000/P3D",
    ]
    assert days(calendar(lines), "UTC") == ["2028-07-04", "2028-08-01", "2028-08-02", "2028-08-03"]


def test_an_event_with_a_time_ends_before_an_end_that_is_earlier_in_the_day() -> None:
    lines = ["DTSTART:20280704T100000", "DURATION:PT1H", "RRULE:FREQ=DAILY;UNTIL=20280706T090000"]
    found = days_of(calendar(lines), FIRST, LAST, "Europe/London")
    assert sorted(found.timed["Closed"]) == [date(2028, 7, 4), date(2028, 7, 5)]


def test_an_excluded_time_leaves_the_other_times_of_the_day() -> None:
    rule = "RRULE:FREQ=DAILY;BYHOUR=9,15;COUNT=4"
    lines = ["DTSTART:20280704T090000", "DURATION:PT1H", rule, "EXDATE:20280704T090000", "EXDATE;VALUE=DATE:20280705"]
    found = days_of(calendar(lines), FIRST, LAST, "Europe/London")
    assert sorted(found.timed["Closed"]) == [date(2028, 7, 4)]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["DTSTART;VALUE=DATE:20280704", "RRULE:FREQ=DAILY;COUNT=3", "EXRULE:FREQ=WEEKLY"], "EXRULE"),
        (["DTSTART:00010101T000000Z", "DTEND:00010102T000000Z"], "the years 1 to 9999"),
        (["DTSTART;VALUE=DATE:99991231", "DURATION:P30D"], "Closed"),
    ],
)
def test_what_cannot_be_followed_is_an_error_that_names_the_event(lines: list[str], said: str) -> None:
    with pytest.raises(IcsError, match=said):
        days_of(calendar(lines), FIRST, LAST, "America/New_York")
