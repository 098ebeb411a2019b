"""A `once` that is edited: its one instant runs, or is in a count."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.engine.driver import T0, Driver, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.spec import Misfire, MisfirePolicy
from tickwheel_operator.engine.triggers import FilteredTrigger, FixedRateTrigger, OnceTrigger
from tickwheel_operator.engine.triggers.calendar import CalendarDates
from tickwheel_operator.engine.triggers.filters import Filter
from tickwheel_operator.ledger import facts as f

SKIP = Misfire(policy=MisfirePolicy.SKIP)


def once(at_ms: int, **changes: Any) -> Any:
    return task_spec(trigger=OnceTrigger(T0 + at_ms), **changes)


def edited(driver: Driver, at_ms: int, spec: Any, *, seen: bool) -> Driver:
    """The task is edited before the leader's eyes, or while nobody leads."""
    if not seen:
        return driver.successor(spec, now_ms=T0 + at_ms)
    driver.at(at_ms, m.TaskApplied(spec=spec))
    return driver


def fired(driver: Driver) -> list[int]:
    return [fact.scheduled_ms - T0 for fact in driver.of(f.Fired)]


def skips(driver: Driver) -> list[tuple[int, f.SkipReason]]:
    return [(skip.count, skip.reason) for skip in driver.of(f.Skipped)]


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_an_unfired_once_that_is_edited_to_the_past_is_overdue(seen: bool, named: bool) -> None:
    driver = Driver.leading(once(3_600_000))
    if named:  # a fact knows it
        driver.at(10_000, m.TaskApplied(spec=once(7_200_000, generation=2)))
    driver = edited(driver, 60_000, once(55_000, generation=3), seen=seen)
    assert fired(driver) == [55_000]
    assert skips(driver) == []
    driver.at(7_300_000)
    assert fired(driver) == [55_000]
    assert fired(driver.successor(once(55_000, generation=3))) == [55_000]


@pytest.mark.parametrize("seen", [True, False])
def test_the_misfire_policy_decides_about_it(seen: bool) -> None:
    driver = Driver.leading(once(3_600_000, misfire=SKIP))
    driver = edited(driver, 60_000, once(50_000, misfire=SKIP, generation=2), seen=seen)
    assert fired(driver) == []
    assert skips(driver) == [(1, f.SkipReason.MISFIRED)]


@pytest.mark.parametrize("seen", [True, False])
def test_it_is_overdue_also_before_its_creation_and_behind_what_was_settled(seen: bool) -> None:
    driver = Driver.leading(once(3_600_000))
    driver.at(20_000, m.TaskApplied(spec=once(7_200_000, generation=2)))
    driver = edited(driver, 60_000, once(-5_000, generation=3), seen=seen)
    assert fired(driver) == [-5_000]


@pytest.mark.parametrize("seen", [True, False])
def test_a_once_that_has_run_runs_again_at_a_later_instant_only(seen: bool) -> None:
    driver = Driver.leading(once(10_000))
    driver.at(10_000)
    driver = edited(driver, 60_000, once(9_000, generation=2), seen=seen)
    assert fired(driver) == [10_000]
    assert skips(driver) == [(1, f.SkipReason.EDITED)]
    driver = edited(driver, 70_000, once(10_000, generation=3), seen=seen)
    assert fired(driver) == [10_000]
    assert skips(driver) == [(1, f.SkipReason.EDITED)] * 2
    driver = edited(driver, 80_000, once(75_000, generation=4), seen=seen)
    assert fired(driver) == [10_000, 75_000]


@pytest.mark.parametrize("seen", [True, False])
def test_an_instant_that_a_faster_clock_seemed_to_have_settled_still_comes(seen: bool) -> None:
    driver = Driver.leading(once(3_600_000))
    driver.at(50_000, m.TaskApplied(spec=once(7_200_000, generation=2)))  # its watermark is here
    spec = once(45_000, generation=3)
    if seen:
        driver.at(40_000, m.TaskApplied(spec=spec))
    else:
        driver = driver.successor(spec, now_ms=T0 + 40_000)
    assert fired(driver) == []
    driver.at(45_000)
    assert fired(driver) == [45_000]


def test_a_schedule_that_becomes_a_once_of_the_past_is_overdue_and_what_it_left_is_counted() -> None:
    driver = Driver.leading(task_spec())
    driver.at(2_000)
    new = driver.successor(once(9_200, generation=2), now_ms=T0 + 9_500)
    assert fired(new)[-2:] == [2_000, 9_200]
    assert skips(new) == [(7, f.SkipReason.EDITED)]


@pytest.mark.parametrize("seen", [True, False])
def test_its_calendar_still_decides(seen: bool) -> None:
    closed = Filter(exclude=(CalendarDates("closed", weekdays=range(7)),))
    driver = Driver.leading(once(3_600_000))
    spec = task_spec(trigger=FilteredTrigger(OnceTrigger(T0 + 50_000), closed), generation=2)
    driver = edited(driver, 60_000, spec, seen=seen)
    assert fired(driver) == []
    opened = task_spec(trigger=FilteredTrigger(OnceTrigger(T0 + 50_000), Filter()), generation=3)
    assert fired(edited(driver, 70_000, opened, seen=seen)) == [50_000]


def test_a_once_that_was_edited_before_any_fact_is_judged_by_its_policy() -> None:
    driver = Driver.leading(once(20_000, generation=2), now_ms=T0 + 60_000)
    assert fired(driver) == [20_000]
    assert skips(driver) == []


def test_another_schedule_than_a_once_counts_from_the_edit() -> None:
    driver = Driver.leading(once(3_600_000))
    driver.at(60_000, m.TaskApplied(spec=task_spec(trigger=FixedRateTrigger(10_000, T0), generation=2)))
    driver.at(70_000)
    assert fired(driver) == [70_000]


def test_a_status_of_before_the_edit_is_not_the_word_of_a_lost_ledger() -> None:
    driver = Driver.leading(once(3_600_000))
    driver.at(50_000, m.TaskApplied(spec=once(7_200_000, generation=2)))
    suspended = once(20_000, generation=3, suspend=True)
    driver.at(60_000, m.TaskApplied(spec=suspended))
    new = Driver(now_ms=T0 + 61_000)
    new.engine.replay(driver.facts)
    stale = m.StatusRecord(generation=2, settled_ms=T0 + 50_000)  # the leader died before it wrote the next one
    new.do(m.TaskApplied(spec=suspended, record=stale))
    new.do(m.CatalogSynced())
    assert new.of(f.Recovered) == []
    new.do(m.TaskApplied(spec=once(20_000, generation=4)))
    assert fired(new) == [20_000]


def test_a_once_that_an_edit_names_for_this_very_moment_fires() -> None:
    driver = Driver.leading(task_spec(trigger=OnceTrigger(T0 + 60_000)))
    driver.at(10_000)
    driver.do(m.TaskApplied(spec=task_spec(trigger=OnceTrigger(T0 + 10_000), generation=2)))
    assert [fact.scheduled_ms - T0 for fact in driver.of(f.Fired)] == [10_000]
    driver.at(70_000)
    assert len(driver.of(f.Fired)) == 1
