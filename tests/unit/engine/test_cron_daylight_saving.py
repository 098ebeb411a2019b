"""What becomes of local times that a zone's clock skips or shows twice."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from tests.unit.engine.test_cron_oracle import CHANGES

from tickwheel_operator.engine.cron import instant_of_local, parse


def local_instants(expression: str, zone_name: str, after: str, until: str) -> list[str]:
    """Return the instants in (after, until], as local time with its offset."""
    zone = ZoneInfo(zone_name)
    bounds = [int(datetime.fromisoformat(text).timestamp() * 1000) for text in (after, until)]
    instants = parse(expression).iterate(bounds[0], bounds[1], zone)
    return [datetime.fromtimestamp(instant / 1000, zone).isoformat() for instant in instants]


def test_a_fixed_time_in_a_gap_fires_once_at_the_end_of_the_gap() -> None:
    assert local_instants(
        "30 2 * * *", "America/New_York", "2026-03-07T00:00:00-05:00", "2026-03-10T00:00:00-04:00"
    ) == ["2026-03-07T02:30:00-05:00", "2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"]


@pytest.mark.parametrize("expression", ["0 0 * * *", "0 */24 * * *", "*/60 0 * * *", "0 0-0/2 * * *"])
def test_a_step_that_reaches_one_value_is_a_fixed_time(expression: str) -> None:
    # Midnight does not exist in Santiago on 7 September 2025.
    assert local_instants(expression, "America/Santiago", "2025-09-06T00:00:00-04:00", "2025-09-08T12:00:00-03:00") == [
        "2025-09-07T01:00:00-03:00",
        "2025-09-08T00:00:00-03:00",
    ]


@pytest.mark.parametrize("expression", ["0,20,40 2 * * *", "0-59 2 * * *", "* 20 2 * * *", "30 2,3 8 3 *"])
def test_many_fixed_times_in_a_gap_are_one_instant(expression: str) -> None:
    instants = local_instants(expression, "America/New_York", "2026-03-08T00:00:00-05:00", "2026-03-08T03:29:00-04:00")
    assert instants == ["2026-03-08T03:00:00-04:00"]


def test_a_fixed_time_at_the_end_of_a_gap_does_not_fire_twice() -> None:
    assert local_instants(
        "0 2,3 * * *", "America/New_York", "2026-03-08T00:00:00-05:00", "2026-03-09T00:00:00-04:00"
    ) == ["2026-03-08T03:00:00-04:00"]


def test_a_fixed_time_that_happens_twice_fires_the_first_time() -> None:
    assert local_instants(
        "30 1 * * *", "America/New_York", "2026-10-31T12:00:00-04:00", "2026-11-02T12:00:00-05:00"
    ) == ["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"]


def test_a_range_of_minutes_fires_in_the_first_pass_only() -> None:
    assert local_instants(
        "0-30 1 1 11 *", "America/New_York", "2026-11-01T01:28:00-04:00", "2026-11-01T12:00:00-05:00"
    ) == ["2026-11-01T01:29:00-04:00", "2026-11-01T01:30:00-04:00"]


def test_asked_from_the_second_pass_a_fixed_time_is_past() -> None:
    assert local_instants(
        "30 1 * * *", "America/New_York", "2026-11-01T01:10:00-05:00", "2026-11-02T12:00:00-05:00"
    ) == ["2026-11-02T01:30:00-05:00"]


@pytest.mark.parametrize("expression", ["*/30 1 * * *", "0/30 1 * * *", "0 0/30 1 ? * *"])
def test_a_step_fires_in_both_passes_of_a_repeated_hour(expression: str) -> None:
    assert local_instants(expression, "America/New_York", "2026-11-01T00:00:00-04:00", "2026-11-01T12:00:00-05:00") == [
        "2026-11-01T01:00:00-04:00",
        "2026-11-01T01:30:00-04:00",
        "2026-11-01T01:00:00-05:00",
        "2026-11-01T01:30:00-05:00",
    ]


def test_a_wildcard_hour_fires_every_real_hour() -> None:
    spring = local_instants("30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00+01:00", "2026-03-29T04:00:00+02:00")
    assert [text[11:] for text in spring] == ["00:30:00+01:00", "01:30:00+01:00", "03:30:00+02:00"]
    autumn = local_instants("30 * * * *", "Europe/Berlin", "2026-10-25T01:00:00+02:00", "2026-10-25T04:00:00+01:00")
    assert [text[11:] for text in autumn] == [
        "01:30:00+02:00",
        "02:30:00+02:00",
        "02:30:00+01:00",
        "03:30:00+01:00",
    ]


def test_a_step_fires_nothing_for_a_skipped_hour() -> None:
    assert (
        local_instants("*/15 2 * * *", "Europe/Berlin", "2026-03-29T00:00:00+01:00", "2026-03-29T23:00:00+02:00") == []
    )


def test_the_half_hour_of_lord_howe_is_skipped_and_repeated() -> None:
    # Clocks go from 02:00 to 02:30 on 4 October 2026, and from 02:00 back to 01:30 on 5 April 2026.
    assert local_instants(
        "10 2 * * *", "Australia/Lord_Howe", "2026-10-04T00:00:00+10:30", "2026-10-05T00:00:00+11:00"
    ) == ["2026-10-04T02:30:00+11:00"]
    assert local_instants(
        "45 1 * * *", "Australia/Lord_Howe", "2026-04-05T00:00:00+11:00", "2026-04-06T00:00:00+10:30"
    ) == ["2026-04-05T01:45:00+11:00"]
    assert local_instants(
        "*/45 1 * * *", "Australia/Lord_Howe", "2026-04-05T01:30:00+11:00", "2026-04-06T00:00:00+10:30"
    ) == ["2026-04-05T01:45:00+11:00", "2026-04-05T01:45:00+10:30"]


def test_a_day_that_samoa_skipped_fires_at_its_end() -> None:
    # 30 December 2011 did not exist in Apia.
    assert local_instants("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00-10:00", "2012-01-01T00:00:00+14:00") == [
        "2011-12-29T12:00:00-10:00",
        "2011-12-31T00:00:00+14:00",
        "2011-12-31T12:00:00+14:00",
    ]
    assert local_instants("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00-10:00", "2012-12-01T00:00:00+14:00") == [
        "2011-12-31T00:00:00+14:00"
    ]
    assert local_instants("0 * 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00-10:00", "2012-12-01T00:00:00+14:00") == []


def test_midnight_in_havana_exists_once_or_not_at_all_and_fires_once() -> None:
    # Cuba changes at midnight: 00:00 to 01:00 on 8 March 2026, 01:00 back to 00:00 on 1 November 2026.
    assert local_instants("@daily", "America/Havana", "2026-03-07T12:00:00-05:00", "2026-03-09T12:00:00-04:00") == [
        "2026-03-08T01:00:00-04:00",
        "2026-03-09T00:00:00-04:00",
    ]
    assert local_instants("@daily", "America/Havana", "2026-10-31T12:00:00-04:00", "2026-11-02T12:00:00-05:00") == [
        "2026-11-01T00:00:00-04:00",
        "2026-11-02T00:00:00-05:00",
    ]


def test_the_hour_that_morocco_takes_back_for_ramadan_fires_once() -> None:
    # 03:00 back to 02:00 on 15 February 2026, 02:00 to 03:00 on 22 March 2026.
    assert local_instants(
        "30 2 * * *", "Africa/Casablanca", "2026-02-14T12:00:00+01:00", "2026-02-16T12:00:00+00:00"
    ) == ["2026-02-15T02:30:00+01:00", "2026-02-16T02:30:00+00:00"]
    assert local_instants(
        "30 2 * * *", "Africa/Casablanca", "2026-03-21T12:00:00+00:00", "2026-03-23T12:00:00+01:00"
    ) == ["2026-03-22T03:00:00+01:00", "2026-03-23T02:30:00+01:00"]


def test_a_gap_of_odd_seconds_ends_on_an_odd_second() -> None:
    # Liberia went from 44 minutes and 30 seconds behind UTC to UTC at midnight of 7 January 1972.
    assert local_instants(
        "10 0 * * *", "Africa/Monrovia", "1972-01-06T12:00:00+00:00", "1972-01-08T12:00:00+00:00"
    ) == ["1972-01-07T00:44:30+00:00", "1972-01-08T00:10:00+00:00"]


def test_shanghai_has_no_daylight_saving_now() -> None:
    instants = local_instants("30 2 * * *", "Asia/Shanghai", "2026-01-01T00:00:00+08:00", "2027-01-01T00:00:00+08:00")
    assert len(instants) == 365
    assert {text[10:] for text in instants} == {"T02:30:00+08:00"}


def test_a_time_that_the_gap_swallows_every_year_never_fires() -> None:
    zone = ZoneInfo("America/New_York")
    now = int(datetime.fromisoformat("2026-01-01T00:00:00Z").timestamp() * 1000)
    schedule = parse("* 2 * 3 SUN#2")
    assert schedule.next_after(now, zone) is None
    assert schedule.never_fires(zone, after_ms=now)
    assert not schedule.never_fires(ZoneInfo("Europe/Berlin"), after_ms=now)
    # The same date with a fixed time fires at the end of each gap.
    assert not parse("30 2 * 3 SUN#2").never_fires(zone, after_ms=now)


def test_the_second_pass_is_found_when_the_first_pass_was_the_last_match_for_a_year() -> None:
    # The search may leap years ahead from here, but not over the repeated hour.
    assert local_instants(
        "*/20 1 1 11 *", "America/New_York", "2026-11-01T01:40:00-04:00", "2027-10-01T00:00:00-04:00"
    ) == ["2026-11-01T01:00:00-05:00", "2026-11-01T01:20:00-05:00", "2026-11-01T01:40:00-05:00"]


def test_the_first_pass_is_found_backwards_from_the_second_when_it_was_the_only_match_for_a_year() -> None:
    zone = ZoneInfo("America/New_York")
    second_pass = int(datetime.fromisoformat("2026-11-01T01:10:00-05:00").timestamp() * 1000)
    latest = parse("20/20 1 1 11 *").latest_until(second_pass, zone)
    assert latest is not None
    assert datetime.fromtimestamp(latest / 1000, zone).isoformat() == "2026-11-01T01:40:00-04:00"


@pytest.mark.parametrize(("zone_name", "day"), CHANGES, ids=lambda value: value)
def test_a_local_time_is_the_first_instant_that_shows_it_or_what_comes_after_its_gap(zone_name: str, day: str) -> None:
    zone = ZoneInfo(zone_name)
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    first: dict[datetime, datetime] = {}
    shown = []
    for minute in range(3 * 1440):
        moment = start + timedelta(minutes=minute)
        local = moment.astimezone(zone).replace(tzinfo=None, fold=0)
        first.setdefault(local, moment)
        shown.append((moment, local))
    local = shown[300][1]
    while local < shown[-300][1]:
        expected = first.get(local) or next(moment for moment, later in shown if later > local)
        found = instant_of_local(int(local.replace(tzinfo=UTC).timestamp()) * 1000, zone)
        assert found == int(expected.timestamp()) * 1000, local
        fixed = parse(f"{local.minute} {local.hour} {local.day} {local.month} *")
        assert fixed.latest_until(found, zone) == found, "as a trigger has it"
        local += timedelta(minutes=1)


def test_a_local_time_keeps_its_milliseconds_and_has_an_instant_while_there_are_years() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert instant_of_local(1_788_220_800_123, berlin) == 1_788_213_600_123
    assert instant_of_local(-62_135_596_800_000, berlin) is None
    assert instant_of_local(253_402_300_799_999, berlin) is None
