"""What `lint` says about expressions that are legal and yet not what Quartz, or their author, means."""

import re
from datetime import datetime, timedelta

import pytest

from tickwheel_operator.engine.cron import (
    CronError,
    UnknownZoneError,
    parse,
    quartz_warnings,
    warnings,
    zone_named,
    zone_names,
)


@pytest.mark.parametrize("weekday", ["2", "1-5", "5#2", "6L", "MON,3", "1/2", "0"])
def test_a_numbered_weekday_is_warned_of(weekday: str) -> None:
    (line,) = quartz_warnings(f"0 0 9 ? * {weekday}")
    assert f"'{weekday}'" in line
    assert "1 is Sunday" in line


def test_the_warning_writes_the_weekdays_by_name() -> None:
    (line,) = quartz_warnings("0 0 9 ? * 1-5/2,7#2,6L")
    assert "'MON-FRI/2,SUN#2,SATL'" in line


def test_the_warning_tells_both_readings_of_what_was_meant_for_quartz() -> None:
    (line,) = quartz_warnings("0 0 9 ? * 2-6")
    assert "it means 'TUE-SAT'" in line
    assert "in Quartz 1 is Sunday, and it means 'MON-FRI'" in line
    (line,) = quartz_warnings("0 0 9 ? * 0,6")
    assert "in Quartz 1 is Sunday, and there is no 0" in line


@pytest.mark.parametrize("weekday", ["?", "*", "MON-FRI", "FRIL", "FRI#2", "*/2", "SUN"])
def test_what_quartz_reads_alike_is_not_warned_of(weekday: str) -> None:
    assert quartz_warnings(f"0 */5 9-17 ? * {weekday}") == []


def test_two_restricted_day_fields_are_warned_of() -> None:
    (line,) = quartz_warnings("0 0 0 13 * FRI")
    assert "either" in line
    assert "Quartz refuses" in line


@pytest.mark.parametrize("star", ["*", "?", "*/1", "?/1", "*,15"])
def test_a_wildcard_however_it_is_spelt_is_no_restriction_to_warn_of(star: str) -> None:
    assert quartz_warnings(f"0 0 0 {star} * FRI") == []


def test_a_step_wider_than_its_field_is_warned_of() -> None:
    (line,) = warnings("*/90 * * * *")
    assert "minute '*/90'" in line
    assert "fixedRate" in line
    assert warnings("*/59 * * * *") == []


@pytest.mark.parametrize("function", [warnings, quartz_warnings])
def test_macros_are_read_alike_and_faults_are_refused(function) -> None:  # type: ignore[no-untyped-def]
    assert function("@weekly") == []
    with pytest.raises(CronError):
        function("0 0 * * 8")


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd", "/etc/localtime", "Asia", "a\0b", "x" * 5_000])
def test_an_unknown_zone_is_refused_by_name(name: str) -> None:
    with pytest.raises(UnknownZoneError, match="is not a time zone of the IANA data"):
        zone_named(name)


@pytest.mark.parametrize("name", ["localtime", "posixrules", "right/UTC", "posix/Europe/Berlin"])
def test_what_depends_on_the_machine_is_no_zone_and_never_suggested(name: str) -> None:
    with pytest.raises(UnknownZoneError, match="is not a time zone of the IANA data") as caught:
        zone_named(name)
    assert name not in str(caught.value).partition(";")[2]
    with pytest.raises(UnknownZoneError) as caught:
        zone_named("Local")
    assert "localtime" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "zone", "where"),
    [
        ("GMT+8", "Etc/GMT-8", "8 h ahead of"),
        ("utc+08:00", "Etc/GMT-8", "8 h ahead of"),
        ("-0300", "Etc/GMT+3", "3 h behind"),
    ],
)
def test_an_offset_is_told_the_zone_that_has_it(name: str, zone: str, where: str) -> None:
    with pytest.raises(UnknownZoneError) as caught:
        zone_named(name)
    assert f"{zone} is {where} UTC" in str(caught.value)
    ahead = datetime(2026, 1, 1, tzinfo=zone_named(zone)).utcoffset()
    assert ahead is not None
    assert (ahead > timedelta(0)) == ("ahead" in where)


@pytest.mark.parametrize("name", ["+05:30", "UTC+20", "GMT-00"])
def test_an_offset_that_no_zone_is_named_after_is_told_of_cities(name: str) -> None:
    with pytest.raises(UnknownZoneError, match="zones are named after cities"):
        zone_named(name)


def test_a_zone_in_the_wrong_case_is_told_the_right_one() -> None:
    with pytest.raises(UnknownZoneError, match=r"did you mean Asia/Shanghai\b"):
        zone_named("asia/shanghai")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("PST", "did you mean America/Los_Angeles?"),
        ("IST", "did you mean Asia/Kolkata, Europe/Dublin or Asia/Jerusalem?"),
        ("Pacific Standard Time", "it is a name of Windows; did you mean America/Los_Angeles?"),
        ("Eastern Daylight Time", "it is a name of Windows; did you mean America/New_York?"),
        ("W. Europe Standard Time", "it is a name of Windows; did you mean Europe/Berlin?"),
        ("Local", "the operator's pods have no local time; name the zone of a city, for example Europe/Berlin, or UTC"),
        ("utc", "did you mean UTC?"),
        ("America/New York", "did you mean America/New_York?"),
        ("Europe/Berln", "did you mean Europe/Berlin"),
        ("XYZ", "(case matters); for example Asia/Shanghai or UTC"),
        ("QST", "(case matters); for example Asia/Shanghai or UTC"),
    ],
)
def test_the_hint_for_a_zone_is_what_people_mean_by_it_or_none(name: str, hint: str) -> None:
    with pytest.raises(UnknownZoneError) as caught:
        zone_named(name)
    assert hint in str(caught.value)


def test_every_zone_that_a_hint_names_exists() -> None:
    windows = set(zone_names._WINDOWS.values())
    named = {zone for text in zone_names._ABBREVIATIONS.values() for zone in re.split(", | or ", text)}
    assert len(windows) > 100
    for zone in windows | named:
        zone_named(zone)


def test_the_zone_of_a_cron_tz_is_the_one_that_is_advised() -> None:
    with pytest.raises(CronError, match=r"'CRON_TZ=Asia/Tokyo' does not belong.*as timeZone: Asia/Tokyo$"):
        parse("CRON_TZ=Asia/Tokyo 0 9 * * *")


def test_the_advice_on_a_step_of_h_says_where_it_fires() -> None:
    [advice] = warnings("H(0-59)/60 * * * *")
    assert "so it fires at one of them only, which H draws;" in advice
    assert "so it fires at the first of them only;" in warnings("*/60 * * * *")[0]
