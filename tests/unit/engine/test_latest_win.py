"""What was missed and cannot all run: the latest instants do, whoever sets the limit."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.spec import EngineConfig, Misfire, MisfirePolicy, Overlap, OverlapPolicy
from tickwheel_operator.engine.triggers import FixedRateTrigger
from tickwheel_operator.ledger import facts as f


def spec(policy: OverlapPolicy, catch_up: int = 100, **changes: Any) -> Any:
    overlap = {"max_concurrent": 1, **changes.pop("overlap", {})}
    return task_spec(
        misfire=Misfire(policy=MisfirePolicy.FIRE_ALL, max_catch_up=catch_up),
        overlap=Overlap(policy=policy, **overlap),
        trigger=FixedRateTrigger(10_000, T0),
        **changes,
    )


def fired(driver: Driver) -> list[int]:
    return [(fact.scheduled_ms - T0) // 10_000 for fact in driver.of(f.Fired)]


def skips(driver: Driver) -> list[tuple[int, int, f.SkipReason]]:
    return [((skip.until_ms - T0) // 10_000, skip.count, skip.reason) for skip in driver.of(f.Skipped)]


def test_forbid_runs_the_latest_missed_instant() -> None:
    driver = Driver.leading(spec(OverlapPolicy.FORBID))
    driver.at(50_500)
    assert fired(driver) == [5]
    assert skips(driver) == [(4, 4, f.SkipReason.OVERLAP)]


def test_forbid_beside_an_open_run_runs_none() -> None:
    driver = Driver.leading(spec(OverlapPolicy.FORBID))
    driver.at(10_000)
    driver.at(50_500)
    assert fired(driver) == [1]
    assert skips(driver) == [(5, 4, f.SkipReason.OVERLAP)]


def test_forbid_with_room_for_several_runs_the_latest_of_them_in_order() -> None:
    driver = Driver.leading(spec(OverlapPolicy.FORBID, overlap={"max_concurrent": 3}))
    driver.at(10_000)
    driver.at(90_500)
    assert fired(driver) == [1, 8, 9]
    assert skips(driver) == [(7, 6, f.SkipReason.OVERLAP)]


def test_a_queue_keeps_the_latest_of_what_may_catch_up() -> None:
    driver = Driver.leading(spec(OverlapPolicy.QUEUE, catch_up=500))
    driver.at(6_000_500)
    assert fired(driver) == list(range(500, 601))
    assert skips(driver) == [(99, 99, f.SkipReason.CATCH_UP_LIMIT), (499, 400, f.SkipReason.QUEUE_FULL)]
    first = deliveries(driver.pull())
    assert [delivery.scheduled_ms - T0 for delivery in first] == [5_000_000], "the oldest of them first"


def test_a_queue_that_is_partly_full_keeps_as_many_as_it_has_room_for() -> None:
    driver = Driver.leading(spec(OverlapPolicy.QUEUE, overlap={"queue_limit": 3}))
    driver.at(10_000)
    driver.at(20_000)  # waits
    driver.at(90_500)
    assert fired(driver) == [1, 2, 8, 9]
    assert skips(driver) == [(7, 5, f.SkipReason.QUEUE_FULL)]


def test_a_full_backlog_keeps_the_latest() -> None:
    driver = Driver.leading(
        spec(OverlapPolicy.ALLOW, overlap={"max_concurrent": None}), config=EngineConfig(max_backlog=3)
    )
    driver.at(90_500)
    assert fired(driver) == [7, 8, 9]
    assert skips(driver) == [(6, 6, f.SkipReason.BACKLOG)]


def test_the_smaller_of_backlog_and_queue_counts() -> None:
    driver = Driver.leading(spec(OverlapPolicy.QUEUE, overlap={"queue_limit": 5}), config=EngineConfig(max_backlog=3))
    driver.at(90_500)
    assert fired(driver) == [7, 8, 9]
    assert skips(driver) == [(6, 6, f.SkipReason.BACKLOG)]


def test_replace_keeps_the_latest_and_starts_no_older_one() -> None:
    driver = Driver.leading(spec(OverlapPolicy.REPLACE))
    driver.at(50_500)
    assert [run.scheduled_ms - T0 for run in driver.open_runs()][-1] == 50_000
    assert [delivery.scheduled_ms - T0 for delivery in deliveries(driver.pull())] == [50_000]


@pytest.mark.parametrize("seed", range(60))
def test_after_any_downtime_the_runs_are_the_latest_that_there_is_room_for(seed: int) -> None:
    chance = random.Random(seed)
    policy = chance.choice((OverlapPolicy.FORBID, OverlapPolicy.QUEUE, OverlapPolicy.ALLOW))
    most, limit, catch_up = chance.randint(1, 4), chance.randint(1, 5), chance.randint(1, 12)
    backlog = chance.choice((4, 100))
    task = spec(policy, catch_up, overlap={"max_concurrent": most, "queue_limit": limit})
    driver = Driver.leading(task, config=EngineConfig(max_backlog=backlog))
    for number in range(1, open_before := chance.randint(0, 3) + 1):
        driver.at(number * 10_000)
    driver.pull(free=chance.randint(0, 2))
    running = sum(run.dispatches[0].token > 0 for run in driver.open_runs())
    before = fired(driver)
    missed = range(open_before, open_before + chance.randint(2, 20))
    driver.at(missed[-1] * 10_000 + chance.choice((500, 5_000)))
    now = fired(driver)[len(before) :]
    assert now == [*missed][len(missed) - len(now) :], "the latest, in order"
    open_now = len(before) + len(now)
    room = {OverlapPolicy.FORBID: most, OverlapPolicy.QUEUE: most + limit}.get(policy, 10**6)
    assert open_now <= max(len(before), min(room, backlog + running))
    wanted = min(catch_up + (missed[-1] * 10_000 + 500 == driver.now_ms - T0), len(missed))
    assert len(now) == min(wanted, max(0, min(room, backlog + running) - len(before)))
    assert sum(skip.count for skip in driver.of(f.Skipped)) == len(missed) - len(now) + (open_before - 1 - len(before))


def test_a_successor_settles_in_the_same_way() -> None:
    task = spec(OverlapPolicy.FORBID)
    driver = Driver.leading(task)
    new = driver.successor(task, now_ms=T0 + 50_500)
    assert fired(new) == [5]
    assert new.do(m.Tick()) == []
