"""`tickwheel calendar import`: what publishers' files become. Those in `ics/` are ours, in their styles."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from tickwheel_operator.api import parse
from tickwheel_operator.api.calendar import Calendar

Call = Callable[..., Result]
FILES = Path(__file__).parent / "ics"
EVENT = "DTSTAMP:20260101T000000Z\nUID:1@test\nSUMMARY:Closed"


def ics(*events: str) -> str:
    """A file with these events, each the lines of one."""
    inner = "".join(f"BEGIN:VEVENT\n{EVENT}\n{event}\nEND:VEVENT\n" for event in events)
    return f"BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:-//test//EN\n{inner}END:VCALENDAR\n"


def imported(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    manifest = yaml.safe_load(result.stdout)
    resource = parse({**manifest, "metadata": {"namespace": "default", **manifest["metadata"]}})
    assert isinstance(resource, Calendar)
    return manifest["spec"]


SPAN = ("--from", "2026-01-01", "--to", "2028-12-31")


def test_a_holiday_calendar_of_google(tickwheel: Call) -> None:
    spec = imported(tickwheel("calendar", "import", FILES / "google_holidays.ics", "--name", "closed", *SPAN))
    assert spec == {"timeZone": "UTC", "dates": ["2026-12-25/2026-12-26", "2027-01-01"]}


def test_a_byte_order_mark_and_the_line_ends_of_windows_make_no_difference(tickwheel: Call) -> None:
    text = (FILES / "google_holidays.ics").read_text(encoding="utf-8").replace("\n", "\r\n")
    spec = imported(tickwheel("calendar", "import", "-", "--name", "closed", *SPAN, stdin=f"\ufeff{text}"))
    assert spec["dates"] == ["2026-12-25/2026-12-26", "2027-01-01"]


def test_an_export_of_outlook_whose_days_go_from_midnight_to_midnight(tickwheel: Call) -> None:
    arguments = ("--name", "closed", *SPAN, "--time-zone", "Asia/Shanghai")
    spec = imported(tickwheel("calendar", "import", FILES / "outlook_export.ics", *arguments))
    assert spec["timeZone"] == "Asia/Shanghai"
    assert spec["dates"] == ["2026-05-01/2026-05-03", "2026-06-26", "2026-08-28", "2026-10-01/2026-10-07"]


def test_rules_are_expanded_within_the_span_without_what_is_excluded_moved_or_cancelled(tickwheel: Call) -> None:
    spec = imported(tickwheel("calendar", "import", FILES / "yearly_rules.ics", "--name", "closed", *SPAN))
    assert spec["timeZone"] == "America/New_York"
    assert spec["dates"] == [
        "2026-03-15", "2026-06-01", "2026-07-04", "2026-11-26/2026-11-27",
        "2027-03-17", "2027-07-04",
        "2028-07-04", "2028-11-23/2028-11-24",
    ]  # fmt: skip


def test_a_span_cuts_through_long_events(tickwheel: Call) -> None:
    text = ics("DTSTART;VALUE=DATE:20260720\nDTEND;VALUE=DATE:20260901\nRRULE:FREQ=YEARLY")
    result = tickwheel(
        "calendar", "import", "-", "--name", "x", "--from", "2027-08-25", "--to", "2028-07-25", stdin=text
    )
    assert imported(result)["dates"] == ["2027-08-25/2027-08-31", "2028-07-20/2028-07-25"]


def test_the_span_is_this_year_and_three_more(tickwheel: Call) -> None:
    text = ics("DTSTART;VALUE=DATE:20000229\nRRULE:FREQ=DAILY")
    (dates,) = imported(tickwheel("calendar", "import", "-", "--name", "x", stdin=text))["dates"]
    first, last = map(date.fromisoformat, dates.split("/"))
    assert (first.month, first.day) == (1, 1)
    assert (last.year - first.year, last.month, last.day) == (3, 12, 31)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "names no time zone"),
        ("X-WR-TIMEZONE:UTC\n", "is for UTC, as publishers write it whatever the country"),
        (
            "X-WR-TIMEZONE:W. Europe Standard Time\n",
            "is for 'W. Europe Standard Time', which is not the name of an IANA",
        ),
    ],
)
def test_a_zone_that_nobody_chose_is_utc_and_said(tickwheel: Call, line: str, said: str) -> None:
    text = ics("DTSTART;VALUE=DATE:20260704").replace("BEGIN:VEVENT", f"{line}BEGIN:VEVENT")
    call = ("calendar", "import", "-", "--name", "x", *SPAN)
    result = tickwheel(*call, stdin=text)
    assert imported(result)["timeZone"] == "UTC"
    assert result.stderr == f"warning: - {said}" + result.stderr.partition(said)[2]
    assert "; --time-zone says another\n" in result.stderr
    assert tickwheel(*call, "--time-zone", "UTC", stdin=text).stderr == "", "it was chosen"


@pytest.mark.parametrize(
    ("event", "days"),
    [
        ("DTSTART:20260704T010000Z\nDTEND:20260704T090000Z", ["2026-07-04"]),
        ("DTSTART:20260704T220000\nDTEND:20260705T020000", ["2026-07-04/2026-07-05"]),
        ("DTSTART:20260704T220000\nDTEND:20260705T000000", ["2026-07-04"]),
        ("DTSTART:20260704T170000Z\nDTEND:20260704T180000Z", ["2026-07-05"]),
    ],
)
def test_events_with_times_are_refused_unless_one_says_what_shall_become_of_them(
    tickwheel: Call, event: str, days: list[str]
) -> None:
    text = ics(event, "DTSTART;VALUE=DATE:20261225")
    call = ("calendar", "import", "-", "--name", "x", "--time-zone", "Asia/Shanghai", *SPAN)
    refused = tickwheel(*call, stdin=text)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "'Closed'" in refused.stderr
    assert "--timed=days" in refused.stderr
    taken = tickwheel(*call, "--timed", "days", stdin=text)
    assert imported(taken)["dates"] == [*days, "2026-12-25"]
    assert "warning: " in taken.stderr
    left = tickwheel(*call, "--timed", "skip", stdin=text)
    assert imported(left)["dates"] == ["2026-12-25"]
    assert "left out" in left.stderr


@pytest.mark.parametrize(
    ("event", "named"),
    [
        ("RRULE:FREQ=HOURLY\nDTSTART;VALUE=DATE:20260704", "HOURLY"),
        ("RRULE:FREQ=YEARLY;BYDAY=XX\nDTSTART;VALUE=DATE:20260704", "RRULE"),
        ("RRULE:EVERY=DAY\nDTSTART;VALUE=DATE:20260704", "RRULE"),
        ("DTSTART;VALUE=DATE:20261399", "DTSTART"),
        ("SUMMARY:No beginning", "'Closed'"),
        ("DTSTART;VALUE=DATE:20260704\nEXDATE;VALUE=DATE:soon", "EXDATE"),
        ("DTSTART;VALUE=DATE:20260704\nRECURRENCE-ID;VALUE=DATE:then", "RECURRENCE-ID"),
        ("DTSTART;VALUE=DATE:20260704\nRECURRENCE-ID;RANGE=THISANDFUTURE;VALUE=DATE:20260701", "RECURRENCE-ID"),
    ],
)
def test_an_event_that_cannot_be_read_is_an_error_and_never_left_out(tickwheel: Call, event: str, named: str) -> None:
    text = ics(event, "DTSTART;VALUE=DATE:20261225")
    result = tickwheel("calendar", "import", "-", "--name", "x", *SPAN, stdin=text)
    assert (result.exit_code, result.stdout) == (1, "")
    assert named in result.stderr
    assert "Closed" in result.stderr or "No beginning" in result.stderr


@pytest.mark.parametrize(
    "text", ["", "hello\n", "<html></html>", "BEGIN:VEVENT\nDTSTART;VALUE=DATE:20260704\nEND:VEVENT\n"]
)
def test_what_is_no_icalendar_file_is_said_to_be_none(tickwheel: Call, text: str) -> None:
    result = tickwheel("calendar", "import", "-", "--name", "x", stdin=text)
    assert result.exit_code == 1
    assert "it is no iCalendar file" in result.stderr


def test_a_file_without_a_day_in_the_span_is_an_error(tickwheel: Call) -> None:
    result = tickwheel("calendar", "import", "-", "--name", "x", *SPAN, stdin=ics("DTSTART;VALUE=DATE:20200704"))
    assert result.exit_code == 1
    assert "none of its 1 events has a day from 2026-01-01 to 2028-12-31" in result.stderr


def test_more_dates_than_a_calendar_may_have_are_refused_with_a_way_out(tickwheel: Call) -> None:
    text = ics("DTSTART;VALUE=DATE:20260101\nRRULE:FREQ=DAILY;INTERVAL=2")
    arguments = ("calendar", "import", "-", "--name", "x", "--from", "2026-01-01")
    result = tickwheel(*arguments, "--to", "2036-12-15", stdin=text)
    assert result.exit_code == 1
    assert "2001" in result.stderr
    assert "2000" in result.stderr
    assert "--to" in result.stderr
    assert len(imported(tickwheel(*arguments, "--to", "2036-01-01", stdin=text))["dates"]) == 1_827


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--name", "Holidays!"), "--name"),
        (("--name", "x", "--time-zone", "Asia/Shangai"), "--time-zone"),
        (("--name", "x", "--from", "2026-07-01", "--to", "2026-06-30"), "--to"),
        (("--name", "x", "--from", "July"), "--from"),
        ((), "--name"),
    ],
)
def test_a_wrong_option_is_named(tickwheel: Call, arguments: tuple[str, ...], named: str) -> None:
    result = tickwheel("calendar", "import", FILES / "google_holidays.ics", *arguments)
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    assert named in result.stderr


def test_json_and_a_namespace_can_be_asked_for(tickwheel: Call) -> None:
    arguments = ("--name", "closed", "-n", "shops", "-o", "json", *SPAN)
    manifest = json.loads(tickwheel("calendar", "import", FILES / "google_holidays.ics", *arguments).stdout)
    assert manifest["metadata"] == {"name": "closed", "namespace": "shops"}
    assert (manifest["apiVersion"], manifest["kind"]) == ("tickwheel.io/v1alpha1", "Calendar")


def test_what_it_prints_is_a_calendar_that_next_takes(tickwheel: Call, write: Callable[[str, str], Path]) -> None:
    printed = tickwheel("calendar", "import", FILES / "google_holidays.ics", "--name", "closed", *SPAN).stdout
    write("set/closed.yaml", printed)
    assert tickwheel("lint", "set").exit_code == 0
