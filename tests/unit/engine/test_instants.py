"""Instants at the ends of what can be written: every value that comes in goes through the engine and out again."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.cron import zone_named
from tickwheel_operator.engine.spec import Misfire, MisfirePolicy
from tickwheel_operator.engine.triggers import (
    CronTrigger,
    DailyIntervalTrigger,
    FilteredTrigger,
    FixedRateTrigger,
    OnceTrigger,
    Trigger,
    latest,
    looked_until,
)
from tickwheel_operator.engine.triggers.filters import Filter
from tickwheel_operator.engine.triggers.instants import (
    FIRST_MS,
    LAST_MS,
    by_clock_of,
    instant_of,
    is_instant,
    timestamp,
)
from tickwheel_operator.ledger.codec import decode_facts, encode_facts

_DAY_MS = 86_400_000
ANY_MS = st.integers(FIRST_MS - 400 * _DAY_MS, LAST_MS + 400 * _DAY_MS)
EDGE_MS = st.sampled_from(
    [FIRST_MS, FIRST_MS + 1, FIRST_MS + 3 * _DAY_MS, T0, LAST_MS - 3 * _DAY_MS, LAST_MS - 1, LAST_MS]
)
ZONES = st.sampled_from(["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "America/New_York", "Africa/Casablanca"])


def test_the_range_is_the_years_1_to_9999_in_utc() -> None:
    assert timestamp(FIRST_MS) == "0001-01-01T00:00:00Z"
    assert timestamp(LAST_MS) == "9999-12-31T23:59:59.999Z"
    assert not is_instant(FIRST_MS - 1) and not is_instant(LAST_MS + 1)


@given(st.integers())
def test_whatever_is_written_can_be_read_as_rfc_3339(instant_ms: int) -> None:
    read = instant_of(datetime.fromisoformat(timestamp(instant_ms)))
    assert read == min(max(instant_ms, FIRST_MS), LAST_MS)


@given(ANY_MS | st.integers(), ZONES)
def test_every_zone_can_show_every_instant(instant_ms: int, zone: str) -> None:
    shown = by_clock_of(zone_named(zone), instant_ms)
    assert instant_of(shown) == min(max(instant_ms, FIRST_MS), LAST_MS)


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-08:00", "0001-01-01T00:00:00+08:00"])
def test_what_no_clock_in_utc_shows_is_no_instant(text: str) -> None:
    with pytest.raises(ValueError, match="outside of the years 1 to 9999 in UTC"):
        instant_of(datetime.fromisoformat(text))


@pytest.mark.parametrize("zone", ["America/New_York", "Pacific/Kiritimati"])
def test_a_zone_at_the_end_of_its_years_is_no_overflow(zone: str) -> None:
    for year, month, day, hour in ((9999, 12, 31, 23), (1, 1, 1, 0)):
        try:
            found = instant_of(datetime(year, month, day, hour, tzinfo=ZoneInfo(zone)))
        except ValueError:
            continue
        assert is_instant(found)


def triggers() -> st.SearchStrategy[Trigger]:
    base = st.one_of(
        st.builds(OnceTrigger, EDGE_MS),
        st.builds(FixedRateTrigger, st.sampled_from([10, _DAY_MS, 3_650 * _DAY_MS]), EDGE_MS),
        st.builds(CronTrigger, st.sampled_from(["0 9 * * *", "* * * * * *", "0 0 29 2 *", "0 0 31 12 *"]), ZONES),
        st.builds(DailyIntervalTrigger, st.just(_DAY_MS), st.just(0), st.just(_DAY_MS), st.just(127), ZONES),
    )
    window = st.builds(Filter, not_before_ms=st.none() | EDGE_MS, not_after_ms=st.none() | EDGE_MS)
    return base | st.builds(FilteredTrigger, base, window)


@settings(max_examples=100, deadline=None)
@given(triggers(), EDGE_MS, st.integers(-_DAY_MS, _DAY_MS), st.integers(0, 40 * _DAY_MS))
def test_no_trigger_answers_with_anything_but_an_instant(trigger: Trigger, edge: int, off_ms: int, span: int) -> None:
    low_ms, high_ms = edge + off_ms, edge + off_ms + span
    found = [trigger.next_after(low_ms), trigger.last_at_or_before(high_ms, low_ms)]
    found += list(islice(latest(trigger, low_ms, high_ms, 3), 3))
    assert all(is_instant(instant) for instant in found if instant is not None)
    assert trigger.count_between(low_ms, high_ms, 5) >= 0
    looked_until(trigger, low_ms)
    trigger.describe()


def test_a_fixed_rate_ends_with_the_last_year() -> None:
    trigger = FixedRateTrigger(3_650 * _DAY_MS, T0)
    at_ms, count = T0, 0
    while (following := trigger.next_after(at_ms)) is not None:
        at_ms, count = following, count + 1
    assert count == 798 and is_instant(at_ms)


@pytest.mark.parametrize("policy", MisfirePolicy)
@pytest.mark.parametrize(
    "trigger",
    [
        OnceTrigger(FIRST_MS),
        OnceTrigger(LAST_MS),
        OnceTrigger(0),
        FixedRateTrigger(3_650 * _DAY_MS, FIRST_MS),
        FixedRateTrigger(_DAY_MS, LAST_MS),
        FilteredTrigger(CronTrigger("0 9 * * *"), Filter(not_before_ms=FIRST_MS, not_after_ms=LAST_MS)),
    ],
    ids=str,
)
def test_the_engine_carries_the_first_and_the_last_instant(trigger: Any, policy: MisfirePolicy) -> None:
    """Through misfires, facts and their codec, a lease, a takeover and the views."""
    spec = task_spec(trigger=trigger, misfire=Misfire(policy=policy), jitter_ms=3_650 * _DAY_MS)
    driver = Driver.leading(spec)
    driver.pull()
    driver.at(1_000)
    for delivery in deliveries(driver.pull()):
        driver.report(succeeded=[delivery.token])
    assert decode_facts(encode_facts(driver.facts), where="here") == driver.facts
    for engine in (driver.engine, driver.successor(spec).engine):
        for view in engine.views(10).tasks:
            for instant_ms in (view.next_ms, view.last_ms, *(run.scheduled_ms for run in view.runs)):
                assert instant_ms is None or is_instant(instant_ms)


def test_a_run_may_stand_for_any_instant() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    runs = [m.Submission(key=str(at_ms), scheduled_ms=at_ms) for at_ms in (FIRST_MS, 0, LAST_MS)]
    driver.do(m.Submit(request=0, namespace="shops", name="hello", runs=runs))
    assert [run.scheduled_ms for run in driver.open_runs()] == [FIRST_MS, 0, LAST_MS]


@pytest.mark.parametrize("at_ms", [FIRST_MS, -1, 0, 1])
def test_the_last_instant_that_fired_may_be_any(at_ms: int) -> None:
    spec = task_spec(trigger=OnceTrigger(at_ms), misfire=Misfire(policy=MisfirePolicy.FIRE_ONCE))
    driver = Driver.leading(spec)
    for engine in (driver.engine, driver.successor(spec).engine):
        (view,) = engine.views(10).tasks
        assert view.last_ms == at_ms


def test_a_task_that_never_fired_has_no_last_instant() -> None:
    (view,) = Driver.leading(task_spec(trigger=OnceTrigger(LAST_MS))).engine.views(10).tasks
    assert view.last_ms is None


def test_a_deadline_of_zero_lets_nothing_fire_late() -> None:
    spec = task_spec(trigger=OnceTrigger(T0 + 5_000), misfire=Misfire(starting_deadline_ms=0))
    driver = Driver.leading(spec)
    driver.at(5_500)
    assert not driver.open_runs()


def test_a_window_that_begins_with_the_epoch_is_searched_from_there() -> None:
    long_before_ms = FIRST_MS + 4 * _DAY_MS
    admitted = Filter(not_before_ms=0)
    assert admitted.horizon(long_before_ms) > 0
    assert admitted.next_admitted(long_before_ms) == 0


def test_a_text_of_the_machines_zone_needs_no_zone() -> None:
    assert by_clock_of(None, 0).astimezone(UTC) == datetime(1970, 1, 1, tzinfo=UTC)
