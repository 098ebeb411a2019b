"""A schedule's fingerprint tells its trigger."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.engine.driver import T0, Driver, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.cron import normal_text
from tickwheel_operator.engine.fingerprints import trigger_of
from tickwheel_operator.engine.sources import Completion, FixedDelay, Outcome
from tickwheel_operator.engine.spec import Misfire, MisfirePolicy
from tickwheel_operator.engine.triggers import (
    CronTrigger,
    DailyIntervalTrigger,
    FilteredTrigger,
    FixedRateTrigger,
    OnceTrigger,
    Trigger,
)
from tickwheel_operator.engine.triggers.calendar import CalendarDates
from tickwheel_operator.engine.triggers.filters import Filter
from tickwheel_operator.ledger import facts as f

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
FIRE_ALL = Misfire(policy=MisfirePolicy.FIRE_ALL)
INSTANTS = st.integers(0, 4_000_000_000_000)
BASES = st.one_of(
    st.builds(CronTrigger, st.sampled_from(["*/5 * * * *", "0 0 9 ? * MON-FRI", "@daily"]), st.just("Asia/Shanghai")),
    st.builds(CronTrigger, st.just("H H * * *"), st.just("UTC"), st.just("shops/hello")),
    st.builds(FixedRateTrigger, st.integers(1, 10**9), INSTANTS),
    st.builds(OnceTrigger, INSTANTS),
    st.builds(
        DailyIntervalTrigger,
        st.integers(1, 60).map(lambda minutes: minutes * 60_000),
        st.integers(0, 11 * 3_600).map(lambda seconds: seconds * 1_000),
        st.integers(12 * 3_600, 24 * 3_600).map(lambda seconds: seconds * 1_000),
        st.integers(1, 127),
        st.just("Europe/Berlin"),
    ),
)
WINDOWS = st.builds(Filter, not_before_ms=st.none() | INSTANTS, not_after_ms=INSTANTS)


CALENDAR = CalendarDates("holidays", weekdays=[5, 6])


@given(BASES | st.builds(FilteredTrigger, BASES, WINDOWS), INSTANTS)
def test_a_fingerprint_makes_a_trigger_with_the_same_instants(trigger: Trigger, after_ms: int) -> None:
    found = trigger_of(task_spec(trigger=trigger).schedule)
    assert found is not None
    assert found.form() == trigger.form()
    assert found.next_after(after_ms) == trigger.next_after(after_ms)
    assert found.count_between(after_ms, after_ms + 10**9, 10**9) == trigger.count_between(
        after_ms, after_ms + 10**9, 10**9
    )


def test_the_dates_of_calendars_are_not_in_a_fingerprint() -> None:
    trigger = FilteredTrigger(FixedRateTrigger(500, T0), Filter(exclude=(CALENDAR,)))
    assert trigger_of(task_spec(trigger=trigger).schedule) == trigger.base


def interval(to_ms: int, every_ms: int = 6 * HOUR_MS, from_ms: int = 0) -> DailyIntervalTrigger:
    return DailyIntervalTrigger(every_ms, from_ms, to_ms)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (CronTrigger("0 9 * * MON-FRI"), CronTrigger("0 0  9 ? jan-dec 1,2,3-5")),
        (CronTrigger("H H * * *", "UTC", "shops/a"), CronTrigger(normal_text("H H * * *", "shops/a"))),
        (interval(24 * HOUR_MS), interval(20 * HOUR_MS)),
        (interval(24 * HOUR_MS, from_ms=8 * HOUR_MS), interval(0, from_ms=8 * HOUR_MS)),
        (
            FilteredTrigger(FixedRateTrigger(1, 0), Filter(exclude=(CALENDAR, CalendarDates("other")))),
            FilteredTrigger(FixedRateTrigger(1, 0), Filter(exclude=(CalendarDates("other"), CALENDAR, CALENDAR))),
        ),
    ],
)
def test_triggers_that_mean_the_same_have_one_fingerprint(one: Trigger, other: Trigger) -> None:
    assert task_spec(trigger=one).schedule == task_spec(trigger=other).schedule
    found = trigger_of(task_spec(trigger=one).schedule)
    assert found is not None
    if isinstance(one, DailyIntervalTrigger):
        assert one.key() == other.key() == found.key()


OTHERS: list[dict[str, Any]] = [
    {},
    {"trigger": FixedRateTrigger(1_000, T0 + 1)},
    {"trigger": CronTrigger("0 9 * * MON-FRI")},
    {"trigger": CronTrigger("0 9 * * MON-FRI", "Asia/Shanghai")},
    {"trigger": CronTrigger("0 9 * * MON-SAT")},
    {"trigger": OnceTrigger(T0)},
    {"trigger": interval(24 * HOUR_MS)},
    {"trigger": interval(18 * HOUR_MS)},
    {"trigger": FilteredTrigger(OnceTrigger(T0), Filter(not_before_ms=T0))},
    {"trigger": FilteredTrigger(OnceTrigger(T0), Filter(not_after_ms=T0))},
    {"trigger": FilteredTrigger(OnceTrigger(T0), Filter(exclude=(CALENDAR,)))},
    {"trigger": FilteredTrigger(OnceTrigger(T0), Filter(include=(CALENDAR,)))},
    {"trigger": None},
    {"source": FixedDelay(1_000)},
    {"source": FixedDelay(1_000, Filter(exclude=(CALENDAR,)))},
    {"source": Completion("other")},
    {"source": Completion("other", Outcome.ANY)},
]


def test_other_instants_are_another_fingerprint() -> None:
    assert len({task_spec(**changes).schedule for changes in OTHERS}) == len(OTHERS)


@pytest.mark.parametrize("changes", [changes for changes in OTHERS if task_spec(**changes).trigger is None])
def test_a_schedule_without_instants_is_none(changes: dict[str, Any]) -> None:
    assert trigger_of(task_spec(**changes).schedule) is None


@pytest.mark.parametrize(
    "schedule",
    [
        "every 500ms from 1970-01-01T00:00:00Z", "", "[]", "null", '["sunrise",1]', '["cron","61 * * * *","UTC"]',
        '["cron","0 * * * *","Mars/Olympus"]', '["fixedRate",0,0]', '["once","noon"]', '["filtered",[],1,2,[],[]]',
    ],
)  # fmt: skip
def test_what_another_release_wrote_is_none(schedule: str) -> None:
    assert trigger_of(schedule) is None


@pytest.mark.parametrize("seen", [True, False])
def test_a_trigger_that_is_written_in_another_way_drops_nothing(seen: bool) -> None:
    every_day = CronTrigger("0 0 * * MON-SUN")
    driver = Driver.leading(task_spec(trigger=every_day, created_ms=T0, misfire=FIRE_ALL), now_ms=T0)
    driver.at(2 * DAY_MS)
    fired = [fact.scheduled_ms for fact in driver.of(f.Fired)]
    assert len(fired) == 2
    rewritten = task_spec(trigger=CronTrigger("00 0 * jan-dec 0-6"), created_ms=T0, misfire=FIRE_ALL, generation=2)
    if seen:
        driver.now_ms = T0 + 5 * DAY_MS
        driver.do(m.TaskApplied(spec=rewritten))
    else:
        driver = driver.successor(rewritten, now_ms=T0 + 5 * DAY_MS)
    assert [fact.scheduled_ms for fact in driver.of(f.Fired)] == [fired[0] + day * DAY_MS for day in range(5)]
    assert driver.of(f.Skipped) == []
    assert driver.of(f.Armed) == []


def test_a_trigger_that_was_changed_while_nobody_led_counts_what_it_left_undone() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    edited = task_spec(generation=2, trigger=FixedRateTrigger(60_000, T0))
    new = driver.successor(edited, now_ms=T0 + 5_500)
    assert [(skip.count, skip.reason) for skip in new.of(f.Skipped)] == [(4, f.SkipReason.EDITED)]
