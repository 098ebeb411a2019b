"""Tasks whose next run starts a fixed delay after the end of the last one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.cron import parse
from tickwheel_operator.engine.sources import FixedDelay
from tickwheel_operator.engine.spec import (
    EngineConfig,
    Misfire,
    MisfirePolicy,
    Overlap,
    OverlapPolicy,
    TaskSpec,
)
from tickwheel_operator.engine.triggers.calendar import CalendarDates
from tickwheel_operator.engine.triggers.filters import Filter
from tickwheel_operator.ledger import facts as f


def _delayed(delay_ms: int = 3_000, admitted: Filter | None = None, **changes: Any) -> TaskSpec:
    return task_spec(source=FixedDelay(delay_ms, admitted), **changes)


def _next_ms(driver: Driver, uid: str = "uid-hello") -> int | None:
    """The instant that a task with a fixed delay sleeps on."""
    return driver.engine.scheduler.starters.delays.next_ms(driver.engine.scheduler.entries[uid])


def _never_beside_another(**changes: Any) -> TaskSpec:
    return _delayed(overlap=Overlap(policy=OverlapPolicy.FORBID, max_concurrent=1), **changes)


def test_a_fixed_delay_counts_from_the_end_of_the_last_run() -> None:
    driver = Driver.leading(_delayed())
    assert driver.at(2_999) == []
    driver.at(3_000)
    [first] = deliveries(driver.pull())
    assert first.scheduled_ms == T0 + 3_000
    driver.at(9_000)
    assert deliveries(driver.pull(received=first.token)) == [], "the run is open"
    driver.at(10_000)
    driver.report(succeeded=[first.token])
    driver.at(12_999)
    driver.pull(received=first.token)
    [second] = deliveries(driver.at(13_000))
    assert second.scheduled_ms == T0 + 13_000


@pytest.mark.parametrize("delay_ms", [3_000, 2_700_000], ids=["short", "longer than what is left to look at"])
def test_a_fixed_delay_looks_on_where_the_search_behind_calendars_gave_up(delay_ms: int) -> None:
    """Two calendars refuse second after second up to midnight, far more than one search asks for."""
    midnight = 86_400_000 - T0 % 86_400_000
    day = datetime.fromtimestamp(T0 / 1000, UTC).day
    calendars = [
        CalendarDates(name, crons=[parse(f"{seconds} * * {day} * *")])
        for name, seconds in (("even", "*/2"), ("odd", "1/2"))
    ]
    spec = _delayed(delay_ms, Filter(exclude=tuple(calendars)))
    driver = Driver.leading(spec)
    assert _next_ms(driver) is None, "nobody knows it yet"
    for passed in range(0, midnight - 60_000, 60_000):
        driver.at(passed)
    assert _next_ms(driver) == T0 + midnight
    late = driver.successor(spec, now_ms=T0 + midnight - 60_000)
    for leader in (driver, late):
        assert leader.at(midnight - 1) == []
        leader.at(midnight)
        assert [d.scheduled_ms - T0 for d in deliveries(leader.pull("w1"))] == [midnight]

    # A leader that comes later does not look through all that has passed.
    days = Driver.leading(spec).successor(spec, now_ms=T0 + 3 * 86_400_000)
    assert [d.scheduled_ms - T0 for d in deliveries(days.pull("w1"))] == [3 * 86_400_000]


def test_a_successor_goes_on_with_the_delay_and_settles_one_that_passed() -> None:
    driver = Driver.leading(_delayed())
    driver.at(3_000)
    [first] = deliveries(driver.pull())
    driver.at(4_000)
    driver.report(succeeded=[first.token])

    new = driver.successor(_delayed(), now_ms=T0 + 5_000)
    new.pull("w1")
    assert [d.scheduled_ms - T0 for d in deliveries(new.at(7_000))] == [7_000]

    late = driver.successor(_delayed(), now_ms=T0 + 60_000)
    assert [d.scheduled_ms - T0 for d in deliveries(late.pull("w1"))] == [7_000]

    skipping = _delayed(misfire=Misfire(policy=MisfirePolicy.SKIP))
    strict = driver.successor(skipping, now_ms=T0 + 60_000)
    strict.pull("w1")
    assert [(s.count, s.reason) for s in strict.of(f.Skipped)] == [(1, f.SkipReason.MISFIRED)]
    assert [d.scheduled_ms - T0 for d in deliveries(strict.at(63_000))] == [63_000]


def test_a_fixed_delay_goes_on_while_a_wall_clock_that_was_set_back_catches_up() -> None:
    driver = Driver.leading(_delayed())
    driver.at(10)
    driver.now_ms, driver.boot_ms = T0 - 3_600_000, T0 + 3_000
    driver.do(m.Tick())
    [first] = deliveries(driver.pull())
    driver.report(succeeded=[first.token])
    for passed_ms in (3_000, 1):  # an instant of its own, a millisecond after the last
        driver.boot_ms += passed_ms
        driver.do(m.Tick())
    assert len(deliveries(driver.pull(received=first.token))) == 1


def test_a_suspended_fixed_delay_starts_anew_when_it_is_resumed() -> None:
    driver = Driver.leading(_delayed(misfire=Misfire(policy=MisfirePolicy.SKIP)))
    driver.at(1_000, m.TaskApplied(spec=_delayed(generation=2, suspend=True)))
    driver.at(20_000)
    assert driver.of(f.Fired) == []
    skip = Misfire(policy=MisfirePolicy.SKIP)
    driver.at(20_500, m.TaskApplied(spec=_delayed(generation=3, misfire=skip)))
    driver.pull()
    assert [d.scheduled_ms - T0 for d in deliveries(driver.at(23_500))] == [23_500]


def test_a_fixed_delay_that_was_missed_is_skipped_where_the_policy_says_so() -> None:
    spec = task_spec(source=FixedDelay(3_000), misfire=Misfire(policy=MisfirePolicy.SKIP))
    driver = Driver.leading(spec)
    driver.at(3_000)
    [first] = deliveries(driver.pull())
    driver.report(succeeded=[first.token])
    later = driver.successor(spec, now_ms=T0 + 60_000)
    assert len(later.of(f.Fired)) == 1
    assert [skip.count for skip in later.of(f.Skipped)] == [1]
    later.at(63_000)
    assert [fact.scheduled_ms - T0 for fact in later.of(f.Fired)] == [3_000, 63_000]


@pytest.mark.parametrize("policy", MisfirePolicy)
def test_a_missed_fixed_delay_without_room_is_one_skip_however_many_delays_have_passed(policy: MisfirePolicy) -> None:
    driver = Driver.leading(_never_beside_another(misfire=Misfire(policy=policy)))
    driver.submit("by hand")  # for hours
    driver.at(1_000, m.IntakeHeld(reason="the store is full"))
    driver.at(86_400_000)
    driver.do(m.IntakeHeld(reason=""))
    assert [skip.count for skip in driver.of(f.Skipped)] == [1]
    assert _next_ms(driver) == T0 + 86_400_000 + 3_000

    new = driver.successor(_never_beside_another())
    assert _next_ms(new) == T0 + 86_400_000 + 3_000


def test_a_fixed_delay_without_room_counts_its_next_from_now_where_the_wall_clock_was_set_ahead() -> None:
    driver = Driver.leading(_delayed(), config=EngineConfig(max_backlog=1))
    driver.submit("by hand")
    driver.now_ms, driver.boot_ms = T0 + 86_400_000, T0 + 2_000
    for passed_ms in (0, 1_000, 2_999, 1):
        driver.now_ms += passed_ms
        driver.boot_ms += passed_ms
        driver.do(m.Tick())
        driver.do(m.Tick())
    assert [skip.until_ms - T0 for skip in driver.of(f.Skipped)] == [86_401_000, 86_404_000]


def test_a_fixed_delay_without_room_lasts_by_the_boot_clock_where_the_wall_clock_was_set_ahead_and_back() -> None:
    driver = Driver.leading(_delayed(), config=EngineConfig(max_backlog=1))
    driver.submit("by hand")
    for wall_ms, boot_ms in ((86_400_000, 1_000), (2_000, 2_000), (1_000, 3_000), (1_000, 3_000), (3_999, 5_999)):
        driver.now_ms, driver.boot_ms = T0 + wall_ms, T0 + boot_ms
        driver.do(m.Tick())
        driver.do(m.Tick())
    assert len(driver.of(f.Skipped)) == 1
    driver.now_ms, driver.boot_ms = T0 + 4_000, T0 + 6_000
    driver.do(m.Tick())
    driver.do(m.Tick())
    assert len(driver.of(f.Skipped)) == 2
