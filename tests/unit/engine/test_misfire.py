"""Misfire policies against a model that lists all instants, and against whole lives of a task."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.engine.driver import T0, Driver, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.cron import parse
from tickwheel_operator.engine.schedule.misfire import settle
from tickwheel_operator.engine.spec import Misfire, MisfirePolicy
from tickwheel_operator.engine.triggers import CronTrigger, FilteredTrigger, FixedRateTrigger, OnceTrigger, Trigger
from tickwheel_operator.engine.triggers.calendar import CalendarDates
from tickwheel_operator.engine.triggers.filters import Filter
from tickwheel_operator.ledger import facts as f
from tickwheel_operator.ledger.facts import SkipReason

TRIGGERS = st.one_of(
    st.builds(FixedRateTrigger, st.integers(1, 50).map(lambda n: n * 100), st.integers(0, 5_000)),
    st.builds(OnceTrigger, st.integers(0, 20_000)),
    st.just(CronTrigger("*/3 * * * * *")),
    st.builds(
        FilteredTrigger,
        st.builds(FixedRateTrigger, st.integers(1, 50).map(lambda n: n * 100), st.integers(0, 5_000)),
        st.sampled_from(["*/2 * * * * *", "0-9 * * * * *"]).map(
            lambda text: Filter(exclude=(CalendarDates("some", crons=[parse(text)]),))
        ),
    ),
)
MISFIRES = st.builds(
    Misfire,
    policy=st.sampled_from(MisfirePolicy),
    starting_deadline_ms=st.none() | st.integers(0, 20_000),
    max_catch_up=st.integers(1, 8),
)


def _all(trigger: Trigger, after_ms: int, until_ms: int) -> list[int]:
    found = []
    instant = trigger.next_after(after_ms)
    while instant is not None and instant <= until_ms:
        found.append(instant)
        instant = trigger.next_after(instant)
    return found


def _model(
    instants: list[int], now_ms: int, misfire: Misfire, threshold_ms: int
) -> tuple[list[int], Counter[SkipReason]]:
    """What the documentation says, instant by instant."""
    skipped: Counter[SkipReason] = Counter()
    fire, missed = [], []
    for instant in instants:
        overdue = now_ms - instant
        if misfire.starting_deadline_ms is not None and overdue > misfire.starting_deadline_ms:
            skipped[SkipReason.DEADLINE] += 1
        elif overdue > threshold_ms:
            missed.append(instant)
        else:
            fire.append(instant)
    match misfire.policy:
        case MisfirePolicy.SKIP:
            skipped[SkipReason.MISFIRED] += len(missed)
        case MisfirePolicy.FIRE_ONCE:
            skipped[SkipReason.COALESCED] += len(missed[:-1])
            fire = missed[-1:] + fire
        case MisfirePolicy.FIRE_ALL:
            skipped[SkipReason.CATCH_UP_LIMIT] += len(missed[: -misfire.max_catch_up])
            fire = missed[-misfire.max_catch_up :] + fire
    return fire, +skipped


@given(TRIGGERS, st.integers(0, 10_000), st.integers(0, 20_000), MISFIRES, st.sampled_from((0, 300, 1_000)))
def test_what_is_overdue_is_settled_as_the_policy_says(
    trigger: Trigger, after_ms: int, span_ms: int, misfire: Misfire, threshold_ms: int
) -> None:
    now_ms = after_ms + span_ms
    instants = _all(trigger, after_ms, now_ms)
    settlement = settle(trigger, after_ms, now_ms, misfire, threshold_ms)
    skipped: Counter[SkipReason] = Counter()
    for skip in settlement.skipped:
        skipped[skip.reason] += skip.count
        assert skip.until_ms in instants, "the last that was skipped is one of them"
        assert skip.until_ms not in settlement.fire
    assert (settlement.fire, skipped) == _model(instants, now_ms, misfire, threshold_ms)


@pytest.mark.parametrize("policy", MisfirePolicy)
def test_all_that_was_missed_is_counted_however_much_it_is(policy: MisfirePolicy) -> None:
    year_ms = 365 * 86_400_000
    misfire = Misfire(policy=policy, max_catch_up=100)
    settlement = settle(FixedRateTrigger(10, 0), T0, T0 + year_ms, misfire, 1_000)
    assert len(settlement.fire) + sum(skip.count for skip in settlement.skipped) == year_ms // 10


@pytest.mark.parametrize("policy", MisfirePolicy)
def test_what_is_due_now_fires_though_no_search_reaches_it_from_what_is_settled(policy: MisfirePolicy) -> None:
    """Calendars refuse second after second of the day before."""
    midnight_ms = T0 - T0 % 86_400_000
    day = datetime.fromtimestamp(midnight_ms / 1000 - 1, UTC).day
    calendars = [
        CalendarDates(name, crons=[parse(f"{seconds} * * {day} * *")])
        for name, seconds in (("even", "*/2"), ("odd", "1/2"))
    ]
    trigger = FilteredTrigger(FixedRateTrigger(1_000, 0), Filter(exclude=tuple(calendars)))
    after_ms = midnight_ms - 80_000_000
    assert trigger.next_after(after_ms) is None
    settlement = settle(trigger, after_ms, midnight_ms + 9_500, Misfire(policy=policy, max_catch_up=100), 1_000)
    fired = {
        MisfirePolicy.SKIP: [9_000],
        MisfirePolicy.FIRE_ONCE: [8_000, 9_000],
        MisfirePolicy.FIRE_ALL: list(range(0, 10_000, 1_000)),
    }
    assert [at - midnight_ms for at in settlement.fire] == fired[policy]


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("tick"), st.integers(1, 8_000)),
        st.tuples(st.just("jump"), st.integers(-60_000, 60_000)),
        st.tuples(st.just("suspend"), st.booleans()),
        st.tuples(st.just("edit"), st.integers(1, 20)),
        st.tuples(st.just("hold"), st.booleans()),
        st.tuples(st.just("lead"), st.integers(0, 5_000)),
    ),
    max_size=14,
)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 20), MISFIRES, EVENTS, st.sampled_from((0, 40)))
def test_every_instant_is_fired_once_or_counted_once_whatever_happens(
    period: int, misfire: Misfire, events: list[tuple[str, int]], lead_ms: int
) -> None:
    """Over leaders, downtime, suspends, edits, clock jumps and a full store; by the facts alone."""
    spec = task_spec(trigger=FixedRateTrigger(period * 100, T0), misfire=misfire)
    driver = Driver.leading(spec)
    driver.boot_ms = T0
    driver.do(m.LeadSet(lead_ms=lead_ms))
    spans: list[tuple[Trigger, int, int]] = []
    """The triggers that were in force, from and to which instant (of the engine's clock, which never goes back)."""
    since = T0
    for what, value in [*events, ("suspend", False), ("hold", False), ("tick", 8_000)]:
        match what:
            case "tick":
                driver.now_ms += value
                driver.boot_ms += value
                driver.do(m.Tick())
            case "jump":
                driver.now_ms += value
                driver.do(m.Tick())
            case "suspend" | "edit":
                period = value if what == "edit" else spec.trigger.period_ms // 100  # type: ignore[union-attr]
                trigger = FixedRateTrigger(period * 100, T0)
                suspend = bool(value) if what == "suspend" else spec.suspend
                before = spec.trigger
                spec = task_spec(trigger=trigger, misfire=misfire, suspend=suspend, generation=spec.generation + 1)
                driver.do(m.TaskApplied(spec=spec))
                if trigger != before:
                    # The new one counts from now, or from what the old one has fired ahead.
                    until = driver.engine.state.by_uid[spec.uid].watermark_ms
                    spans.append((before, since, until))  # type: ignore[arg-type]
                    since = until
            case "hold":
                driver.do(m.IntakeHeld(reason="full" if value else ""))
            case _:
                boot_ms = driver.boot_ms + value
                driver = driver.successor(spec, now_ms=driver.now_ms + value)
                driver.boot_ms = boot_ms
                driver.do(m.LeadSet(lead_ms=lead_ms))
    task = driver.engine.state.by_uid.get(spec.uid)
    settled_ms = task.watermark_ms if task is not None else T0
    spans.append((spec.trigger, since, max(since, settled_ms)))  # type: ignore[arg-type]
    expected = Counter(instant for trigger, low, up_to in spans for instant in _all(trigger, low, up_to))
    fired = Counter(fact.scheduled_ms for fact in driver.of(f.Fired))
    assert not fired - expected, "fired twice, or at an instant that is none"
    assert fired.total() + sum(skip.count for skip in driver.of(f.Skipped)) == expected.total()
    due = _all(spec.trigger, settled_ms, driver.engine.journal.wall_ms)  # type: ignore[arg-type]
    assert not due, "due, and not settled"
