"""Jitter: by how much runs start later, one after another and spread over tasks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.schedule.jitter import jittered_start_ms
from tickwheel_operator.engine.sources import FixedDelay
from tickwheel_operator.engine.spec import Backoff, Misfire, MisfirePolicy, Overlap, OverlapPolicy, RetryPolicy
from tickwheel_operator.engine.triggers import CronTrigger, FixedRateTrigger, OnceTrigger, Trigger
from tickwheel_operator.ledger import facts as f

MINUTE_MS = 60_000
TEN_MINUTES_MS = 10 * MINUTE_MS
EVERY_MINUTE = FixedRateTrigger(MINUTE_MS, T0)


def starts(driver: Driver, until_ms: int, step_ms: int = 1_000) -> list[tuple[int, int]]:
    """(instant, start) of the runs that a free worker gets, each of which succeeds at once."""
    found: list[tuple[int, int]] = []
    last = 0
    for _ in range((T0 + until_ms - driver.now_ms) // step_ms):
        driver.now_ms += step_ms
        got = deliveries(driver.do(m.Tick()))
        last = max([last, *(run.token for run in got)])
        got += deliveries(driver.pull(free=1_000, slots=1_000, received=last))
        last = max([last, *(run.token for run in got)])
        found += [(run.scheduled_ms - T0, driver.now_ms - T0) for run in got]
        if got:
            driver.report(succeeded=[run.token for run in got])
    return found


def test_a_jitter_above_the_interval_starts_no_run_after_the_next_instant() -> None:
    found = starts(Driver.leading(task_spec(trigger=EVERY_MINUTE, jitter_ms=TEN_MINUTES_MS)), 60 * MINUTE_MS)
    assert [instant for instant, _ in found] == [number * MINUTE_MS for number in range(1, 1 + len(found))]
    assert len(found) >= 59
    assert all(instant <= start <= instant + MINUTE_MS for instant, start in found)
    assert len({start - instant for instant, start in found}) > 20, "it is spread"


def test_a_jitter_above_the_interval_lets_forbid_skip_nothing_that_is_short() -> None:
    forbid = Overlap(policy=OverlapPolicy.FORBID, max_concurrent=1)
    driver = Driver.leading(task_spec(trigger=EVERY_MINUTE, jitter_ms=TEN_MINUTES_MS, overlap=forbid))
    found = starts(driver, 60 * MINUTE_MS, 100)
    assert len(found) + sum(skip.count for skip in driver.of(f.Skipped)) >= 59
    assert len(found) >= 57


@pytest.mark.parametrize("policy", list(MisfirePolicy))
def test_what_fifty_tasks_catch_up_after_downtime_is_spread(policy: MisfirePolicy) -> None:
    hourly = FixedRateTrigger(60 * MINUTE_MS, T0)
    specs = [
        task_spec(f"t{number}", trigger=hourly, jitter_ms=TEN_MINUTES_MS, misfire=Misfire(policy=policy))
        for number in range(50)
    ]
    driver = Driver.leading(*specs, now_ms=T0)
    back_ms = 200 * MINUTE_MS
    new = driver.successor(*specs, now_ms=T0 + back_ms)
    found = starts(new, back_ms + TEN_MINUTES_MS + 1_000)
    if policy is MisfirePolicy.SKIP:
        assert found == []
        return
    assert len(found) == 50 * (1 if policy is MisfirePolicy.FIRE_ONCE else 3)
    minutes = [(start - back_ms) // MINUTE_MS for _, start in found]
    assert len(set(minutes)) >= 8
    assert max(minutes.count(minute) for minute in minutes) <= len(found) // 4
    later = new.successor(*specs, now_ms=new.now_ms)
    assert later.of(f.Fired) == new.of(f.Fired)


def test_what_one_task_catches_up_starts_in_order_and_before_the_next_instant() -> None:
    fire_all = Misfire(policy=MisfirePolicy.FIRE_ALL)
    spec = task_spec(trigger=EVERY_MINUTE, jitter_ms=TEN_MINUTES_MS, misfire=fire_all)
    driver = Driver.leading(spec)
    new = driver.successor(spec, now_ms=T0 + 5 * MINUTE_MS + 30_000)
    found = starts(new, 9 * MINUTE_MS)
    assert [instant for instant, _ in found] == [number * MINUTE_MS for number in range(1, 9)]
    assert len({start for _, start in found[:5]}) == 1
    assert 5 * MINUTE_MS + 30_000 <= found[0][1] <= 6 * MINUTE_MS


def test_a_successor_starts_what_is_caught_up_at_the_same_time() -> None:
    spec = task_spec(trigger=FixedRateTrigger(60 * MINUTE_MS, T0), jitter_ms=TEN_MINUTES_MS)
    driver = Driver.leading(spec).successor(spec, now_ms=T0 + 90 * MINUTE_MS)
    successor = driver.successor(spec, now_ms=T0 + 90 * MINUTE_MS + 5_000)
    assert [start for _, start in starts(successor, 110 * MINUTE_MS)] == [
        start for _, start in starts(driver, 110 * MINUTE_MS)
    ]


def test_a_run_that_is_merely_late_keeps_its_start() -> None:
    spec = task_spec(trigger=FixedRateTrigger(60 * MINUTE_MS, T0), jitter_ms=TEN_MINUTES_MS)
    instant = T0 + 60 * MINUTE_MS
    at_once = jittered_start_ms(spec, instant, instant, 1_000)
    assert jittered_start_ms(spec, instant, instant + 1_000, 1_000) == at_once
    assert jittered_start_ms(spec, instant, instant - 50, 1_000) == at_once, "made ahead"
    assert jittered_start_ms(spec, instant, instant + 1_001, 1_000) >= instant + 1_001


@given(
    trigger=st.one_of(
        st.builds(FixedRateTrigger, st.integers(1, 10**6), st.integers(T0 - 10**6, T0)),
        st.sampled_from([CronTrigger("*/7 * * * *"), CronTrigger("0,1 9 * * *", "Europe/Berlin")]),
    ),
    jitter=st.integers(0, 10**8),
    uid=st.text(max_size=5),
    now_ms=st.integers(T0, T0 + 10**8),
)
def test_starts_are_in_the_order_of_instants(trigger: Trigger, jitter: int, uid: str, now_ms: int) -> None:
    spec = task_spec(trigger=trigger, jitter_ms=jitter, uid=uid)
    instants = [now_ms]
    while len(instants) < 12:
        instants.append(trigger.next_after(instants[-1]) or 0)
    del instants[0]
    found = [jittered_start_ms(spec, instant, instant, 1_000) for instant in instants]
    assert all(
        instant <= start < following for start, (instant, following) in zip(found, pairwise(instants), strict=False)
    )
    assert all(start <= instant + jitter for start, instant in zip(found, instants, strict=True))
    made_ms = instants[5] + 1_001
    late = [jittered_start_ms(spec, instant, made_ms, 1_000) for instant in instants[:6]]
    following = trigger.next_after(made_ms) or 0
    assert all(made_ms <= start < following for start in late)
    assert all(one <= other for one, other in pairwise(late))


@pytest.mark.parametrize("changes", [{"trigger": OnceTrigger(T0)}, {"source": FixedDelay(1_000)}])
def test_what_has_no_next_instant_may_start_as_late_as_the_jitter_says(changes: dict[str, Any]) -> None:
    found = {jittered_start_ms(task_spec(uid=f"u{n}", jitter_ms=10**6, **changes), T0, T0, 1_000) for n in range(200)}
    assert T0 <= min(found) < T0 + 10**5
    assert T0 + 9 * 10**5 < max(found) <= T0 + 10**6


def _jittered(instant_ms: int, most_ms: int) -> int:
    """How much later `hello` would start."""
    return jittered_start_ms(task_spec(jitter_ms=most_ms), T0 + instant_ms, T0 + instant_ms, 1_000) - T0 - instant_ms


def test_a_run_that_somebody_asked_for_starts_without_jitter() -> None:
    driver = Driver.leading(task_spec(jitter_ms=900))
    driver.now_ms = T0 + 100
    assert _jittered(100, 900) > 0
    driver.submit("now")
    assert [d.scheduled_ms - T0 for d in deliveries(driver.pull())] == [100]


def test_a_backfilled_run_starts_without_jitter() -> None:
    driver = Driver.leading(task_spec(trigger=EVERY_MINUTE, created_ms=T0 + 300_000, jitter_ms=50_000))
    driver.now_ms = T0 + 300_000
    assert _jittered(300_000, 50_000) > 0
    driver.backfill(60_000, 180_000)
    assert [d.scheduled_ms - T0 for d in deliveries(driver.pull())] == [60_000, 120_000]


def test_a_retry_has_no_jitter_of_its_own_under_a_successor_either() -> None:
    """An edit brings the jitter after the first attempt: it would move that run's start behind the retry."""
    retry = RetryPolicy(limit=3, backoff=Backoff(initial_ms=10, jitter=0))
    driver = Driver.leading(task_spec(retry=retry))
    driver.now_ms = T0 + 1_000
    [first] = deliveries(driver.pull())
    driver.report(failed=[m.FailedAttempt(token=first.token, error_type="E")])
    assert _jittered(1_000, 900) > 10
    new = driver.successor(task_spec(retry=retry, jitter_ms=900, generation=2), now_ms=T0 + 1_005)
    assert deliveries(new.pull(received=first.token)) == []
    [again] = deliveries(new.at(1_010))
    assert (again.run_id, again.attempt) == (first.run_id, 2)
