"""The identity of a schedule: one for all sources that start the same runs, and readable again."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.engine.driver import T0, Driver, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.cron import normal_text
from tickwheel_operator.engine.model import snapshot
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.sources import (
    ByClock,
    ByHand,
    Completion,
    FixedDelay,
    Outcome,
    Source,
    identity,
    source_of,
)
from tickwheel_operator.engine.spec import Misfire, MisfirePolicy
from tickwheel_operator.engine.triggers import (
    AnyTrigger,
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
def test_an_identity_makes_a_trigger_with_the_same_instants(trigger: AnyTrigger, after_ms: int) -> None:
    found = _trigger_of(identity(ByClock(trigger)))
    assert found is not None
    assert found == trigger.normal()
    assert found.next_after(after_ms) == trigger.next_after(after_ms)
    assert found.count_between(after_ms, after_ms + 10**9, 10**9) == trigger.count_between(
        after_ms, after_ms + 10**9, 10**9
    )


def test_every_source_has_a_starter() -> None:
    starters = Driver().engine.scheduler.starters
    sources = (ByClock(OnceTrigger(T0)), FixedDelay(1_000), Completion("other"), ByHand())
    assert {type(source) for source in sources} == set(get_args(Source))
    assert len({starters.of(source) for source in sources}) == len(sources)


@pytest.mark.parametrize("which", ["exclude", "include"])
def test_the_dates_of_calendars_are_not_in_an_identity(which: str) -> None:
    every, before, other = FixedRateTrigger(500, T0), Filter(not_after_ms=T0 + 1), CalendarDates("holidays")
    dated, undated = (ByClock(FilteredTrigger(every, Filter(**{which: (dates,)}))) for dates in (CALENDAR, other))
    assert identity(dated) == identity(undated)
    assert source_of(identity(dated)) == ByClock(every), "nobody knows what they refuse"
    windowed = FilteredTrigger(every, Filter(not_after_ms=T0 + 1, **{which: (CALENDAR,)}))
    assert _trigger_of(identity(ByClock(windowed))) == FilteredTrigger(every, before)


def interval(to_ms: int, every_ms: int = 6 * HOUR_MS, from_ms: int = 0) -> DailyIntervalTrigger:
    return DailyIntervalTrigger(every_ms, from_ms, to_ms)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (CronTrigger("0 9 * * MON-FRI"), CronTrigger("0 0  9 ? jan-dec 1,2,3-5")),
        (CronTrigger("H H * * *", "UTC", "shops/a"), CronTrigger(normal_text("H H * * *", "shops/a"))),
        (interval(24 * HOUR_MS), interval(20 * HOUR_MS)),
        (interval(24 * HOUR_MS, from_ms=8 * HOUR_MS), interval(0, from_ms=8 * HOUR_MS)),
        (OnceTrigger(1), FilteredTrigger(OnceTrigger(1), Filter())),
        (
            FilteredTrigger(FixedRateTrigger(1, 0), Filter(exclude=(CALENDAR, CalendarDates("other")))),
            FilteredTrigger(FixedRateTrigger(1, 0), Filter(exclude=(CalendarDates("other"), CALENDAR, CALENDAR))),
        ),
    ],
)
def test_triggers_that_mean_the_same_have_one_identity(one: AnyTrigger, other: AnyTrigger) -> None:
    assert task_spec(trigger=one).schedule == task_spec(trigger=other).schedule
    found = _trigger_of(task_spec(trigger=one).schedule)
    assert found is not None
    if isinstance(one, DailyIntervalTrigger):
        assert one.key() == other.key() == found.key()


def _trigger_of(schedule: str) -> Trigger | None:
    source = source_of(schedule)
    return None if source is None else source.trigger


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


def test_other_instants_are_another_identity() -> None:
    assert len({task_spec(**changes).schedule for changes in OTHERS}) == len(OTHERS)


@pytest.mark.parametrize("source", [FixedDelay(1_000), Completion("other", Outcome.ANY), ByHand()])
def test_what_follows_no_clock_is_read_again_with_its_window(source: Source) -> None:
    window = Filter(not_before_ms=T0)
    assert source_of(identity(source)) == source
    assert source_of(identity(source.within(window))) == source.within(window)
    assert source_of(identity(source.within(Filter(not_before_ms=T0, exclude=(CALENDAR,))))) == source.within(window)


@pytest.mark.parametrize(
    "schedule",
    [
        "every 500ms from 1970-01-01T00:00:00Z", "", "[]", "null", '["clock",["sunrise",1]]',
        '["clock",["cron","61 * * * *","UTC",""]]', '["clock",["cron","0 * * * *","Mars/Olympus",""]]',
        '["clock",["fixedRate",0,0]]', '["clock",["once","noon"]]', '["clock",["filtered",[],[1,2,[],[]]]]',
        '["fixedRate",500,0]', '["cron","0 0 9 * * 1-5","UTC"]', '["filtered",["once",1],null,1,[],[]]',
    ],
)  # fmt: skip
def test_what_another_release_wrote_is_none(schedule: str) -> None:
    assert source_of(schedule) is None


@pytest.mark.parametrize("schedule", ['["fixedRate",1000,1700000000000]', "every 1s"])
@pytest.mark.parametrize("compacted", [False, True])
def test_a_schedule_that_another_release_wrote_drops_no_run(schedule: str, compacted: bool) -> None:
    spec = task_spec(misfire=FIRE_ALL)
    old = Driver.leading(spec)
    old.at(2_000)
    assert [fact.scheduled_ms - T0 for fact in old.of(f.Fired)] == [1_000, 2_000]
    named = [isinstance(fact, f.TaskNamed) for fact in old.facts].index(True)
    old.facts[named] = msgspec.structs.replace(old.facts[named], schedule=schedule)
    new = Driver(now_ms=T0 + 5_500)
    if compacted:
        state = State()
        for fact in old.facts:
            state.apply(fact)
        new.engine.restore(snapshot.dump(state))
    else:
        new.engine.replay(old.facts)
    new.do(m.TaskApplied(spec=spec))
    new.do(m.CatalogSynced())
    assert [fact.scheduled_ms - T0 for fact in new.of(f.Fired)] == [3_000, 4_000, 5_000]
    assert new.of(f.Skipped) == []
    assert [fact.schedule for fact in new.of(f.Armed)] == [spec.schedule], "from now on it is known by its own"


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
