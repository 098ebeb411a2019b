"""What is due for many tasks at once: bursts, takeovers and a store that opens again, a thousand tasks at a time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.schedule import groups
from tickwheel_operator.engine.schedule.starters import clock
from tickwheel_operator.engine.sources import FixedDelay
from tickwheel_operator.engine.spec import Misfire, MisfirePolicy, Overlap, OverlapPolicy
from tickwheel_operator.engine.triggers import FixedRateTrigger
from tickwheel_operator.ledger import facts as f

HOUR = 3_600_000
SKIP = Misfire(policy=MisfirePolicy.SKIP)
FORBID = Overlap(policy=OverlapPolicy.FORBID, max_concurrent=1)
FULL = m.IntakeHeld(reason="the ledger retains 256 MiB")
OPEN = m.IntakeHeld(reason="")


def _ten_at_once(patch: pytest.MonkeyPatch) -> None:
    for module in (groups, clock):
        patch.setattr(module, "AT_ONCE", 10)


def _hourly(count: int, **changes: Any) -> list[Any]:
    fields = {"trigger": FixedRateTrigger(HOUR, T0), "misfire": SKIP, **changes}
    return [task_spec(f"t{number}", **fields) for number in range(count)]


def _fired(driver: Driver) -> Counter[int]:
    """How many runs each instant has."""
    found: Counter[int] = Counter()
    for fact in driver.of(f.Fired):
        found[fact.scheduled_ms - T0] += len(fact.tasks)
    return found


def _steps(driver: Driver, step_ms: int = 0) -> list[int]:
    """Tick until no schedule is due any more; returns how many runs each step made."""
    engine, made = driver.engine, []
    while engine.pause_ms(driver.now_ms) <= 0 and len(made) < 20:
        before = engine.state.next_run
        driver.do(m.Tick())
        if engine.state.next_run == before and not engine.scheduler.is_behind:
            break
        made.append(engine.state.next_run - before)
        driver.now_ms += step_ms
    return made


def test_a_burst_that_began_in_time_fires_to_its_end_however_long_that_takes() -> None:
    driver = Driver.leading(*_hourly(3_500))
    driver.at(HOUR)

    _steps(driver, step_ms=1_500)

    assert _fired(driver) == {HOUR: 3_500}
    assert driver.of(f.Skipped) == []
    assert [len(fact.tasks) for fact in driver.of(f.Fired)] == [1_000, 1_000, 1_000, 500]


def test_a_burst_that_began_ahead_fires_to_its_end_too() -> None:
    driver = Driver(*_hourly(3_500))
    driver.do(m.LeadSet(lead_ms=20))
    driver.do(m.CatalogSynced())
    driver.at(HOUR - 20 - 3_500 // 40)
    assert _fired(driver) == {HOUR: 1_000}
    driver.now_ms = T0 + HOUR + 3_000

    _steps(driver, step_ms=50)

    assert _fired(driver) == {HOUR: 3_500}
    assert driver.of(f.Skipped) == []


def test_what_waits_in_a_burst_keeps_its_own_starting_deadline() -> None:
    driver = Driver.leading(*_hourly(2_500, misfire=Misfire(starting_deadline_ms=2_000)))
    driver.at(HOUR)

    _steps(driver, step_ms=2_500)

    assert _fired(driver) == {HOUR: 2_000}
    assert Counter(skip.reason for skip in driver.of(f.Skipped)) == {f.SkipReason.DEADLINE: 500}


def test_who_is_edited_deleted_or_suspended_in_a_burst_does_not_fire_with_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _ten_at_once(monkeypatch)
    driver = Driver.leading(*_hourly(100))
    driver.at(HOUR)
    trigger = FixedRateTrigger(HOUR, T0)
    driver.do(m.TaskApplied(spec=task_spec("t99", trigger=trigger, generation=2, suspend=True)))
    driver.do(m.TaskApplied(spec=task_spec("t98", trigger=FixedRateTrigger(HOUR, T0 + 5), generation=2)))
    driver.do(m.TaskRemoved(uid="uid-t97", forget=False))
    driver.do(m.TaskRemoved(uid="uid-t96"))
    assert _fired(driver) == {HOUR: 50}

    _steps(driver)

    assert _fired(driver) == {HOUR: 96}
    assert [(skip.count, skip.reason) for skip in driver.of(f.Skipped)] == [(1, f.SkipReason.EDITED)]


def test_a_task_that_comes_while_others_fire_ahead_fires_at_its_instant() -> None:
    driver = Driver(*_hourly(2_500))
    driver.do(m.LeadSet(lead_ms=20))
    driver.do(m.CatalogSynced())
    driver.at(HOUR - 60)
    assert _fired(driver) == {HOUR: 1_000}

    late = task_spec("late", trigger=FixedRateTrigger(HOUR, T0), created_ms=T0 + HOUR - 60)
    driver.do(m.TaskApplied(spec=late))
    _steps(driver)
    driver.at(HOUR)

    assert _fired(driver) == {HOUR: 2_501}


def test_the_intake_is_held_in_a_burst_and_the_policy_decides_of_the_rest() -> None:
    driver = Driver.leading(*_hourly(2_600))
    driver.at(HOUR)
    driver.do(FULL)
    driver.at(HOUR + 60_000)
    assert _fired(driver) == {HOUR: 2_000}
    assert driver.engine.pause_ms(driver.now_ms) > 0, "it waits, and does not spin"

    driver.do(OPEN)
    _steps(driver)

    assert _fired(driver) == {HOUR: 2_000}
    assert Counter(skip.reason for skip in driver.of(f.Skipped)) == {f.SkipReason.MISFIRED: 600}
    driver.at(2 * HOUR)
    _steps(driver)
    assert _fired(driver) == {HOUR: 2_000, 2 * HOUR: 2_600}


@pytest.mark.parametrize("shared", [True, False])
def test_a_new_leader_settles_what_is_overdue_a_thousand_tasks_at_a_time(shared: bool) -> None:
    triggers = [FixedRateTrigger(HOUR + (0 if shared else number), T0) for number in range(2_500)]
    specs = [task_spec(f"t{number}", trigger=trigger) for number, trigger in enumerate(triggers)]
    driver = Driver(now_ms=T0 + HOUR + 60_000)
    for spec in specs:
        driver.do(m.TaskApplied(spec=spec))
    driver.do(m.CatalogSynced())
    made = [driver.engine.state.next_run - 1]

    made += _steps(driver)

    assert made == [1_000, 1_000, 500]
    assert driver.engine.pause_ms(driver.now_ms) > 0
    assert len(driver.open_runs("t0")) == len(driver.open_runs("t2499")) == 1


def test_an_instant_that_comes_while_a_task_waits_to_be_settled_is_settled_with_the_others() -> None:
    every = FixedRateTrigger(10_000, T0)
    specs = [task_spec(f"t{number}", trigger=every, misfire=SKIP) for number in range(2_100)]
    driver = Driver(*specs, now_ms=T0 + 99_990)
    driver.do(m.LeadSet(lead_ms=5))
    driver.do(m.CatalogSynced())
    assert sum(skip.count for skip in driver.of(f.Skipped)) == 9 * 1_000

    for offset in (99_995, 100_000, 110_000, 120_000):
        driver.at(offset)
        _steps(driver)

    assert sum(skip.count for skip in driver.of(f.Skipped)) == 9 * 2_100
    assert _fired(driver) == {100_000: 2_100, 110_000: 2_100, 120_000: 2_100}


def test_a_leader_that_dies_in_the_middle_leaves_the_rest_to_the_next() -> None:
    specs = _hourly(1_500, misfire=Misfire())
    driver = Driver(*specs, now_ms=T0 + HOUR + 60_000)
    driver.do(m.CatalogSynced())
    assert _fired(driver) == {HOUR: 1_000}

    new = driver.successor(*specs)
    _steps(new)

    assert _fired(new) == {HOUR: 1_500}


def test_tasks_that_make_many_runs_each_are_fewer_at_a_time() -> None:
    every = FixedRateTrigger(1_000, T0)
    catching_up = Misfire(policy=MisfirePolicy.FIRE_ALL, max_catch_up=100)
    driver = Driver(
        *(task_spec(f"t{number}", trigger=every, misfire=catching_up) for number in range(40)), now_ms=T0 + HOUR
    )
    driver.do(m.CatalogSynced())

    assert 1_000 <= driver.engine.state.next_run - 1 <= 1_102
    assert len(driver.open_runs("t30")) == 0
    _steps(driver)
    assert len(driver.open_runs("t39")) == 102, "a hundred, and two that are merely late"


def test_an_edit_a_suspend_and_a_deletion_find_their_task_though_it_waits_to_be_settled() -> None:
    driver = Driver(*_hourly(4, misfire=Misfire()), now_ms=T0 + HOUR + 60_000)
    driver.do(FULL)
    driver.do(m.CatalogSynced())
    driver.do(m.TaskRemoved(uid="uid-t3"))
    driver.do(m.TaskRemoved(uid="uid-t2", forget=False))
    driver.do(m.TaskApplied(spec=task_spec("t1", trigger=FixedRateTrigger(7_000_000, T0), generation=2)))
    driver.do(m.TaskApplied(spec=task_spec("t0", trigger=FixedRateTrigger(HOUR, T0), generation=2, suspend=True)))
    driver.do(OPEN)
    _steps(driver)

    assert _fired(driver) == {}
    assert [(skip.count, skip.reason) for skip in driver.of(f.Skipped)] == [(1, f.SkipReason.EDITED)]
    driver.do(m.TaskApplied(spec=task_spec("t0", trigger=FixedRateTrigger(HOUR, T0), generation=3)))
    assert len(driver.open_runs("t0")) == 1, "what it passed over is settled when it is resumed"


def test_a_store_that_opens_again_settles_a_thousand_tasks_at_a_time() -> None:
    driver = Driver.leading(*_hourly(2_500, misfire=Misfire()))
    driver.do(FULL)
    driver.at(HOUR + 60_000)
    assert _steps(driver) == []
    driver.do(OPEN)
    assert driver.engine.state.next_run - 1 == 1_000
    assert _steps(driver) == [1_000, 500]
    driver.at(2 * HOUR)
    _steps(driver)
    assert _fired(driver) == {HOUR: 2_500, 2 * HOUR: 2_500}


def test_fixed_delays_that_are_overdue_take_their_turn_too() -> None:
    specs = [task_spec(f"t{number}", source=FixedDelay(1_000)) for number in range(1_500)]
    driver = Driver(*specs, now_ms=T0 + HOUR)
    driver.do(m.CatalogSynced())
    assert driver.engine.state.next_run - 1 == 1_000
    assert _steps(driver) == [500]
    assert len(driver.open_runs("t1499")) == 1


def test_the_first_burst_of_a_leader_begins_as_early_as_the_later_ones() -> None:
    driver = Driver(*_hourly(2_000))
    driver.do(m.LeadSet(lead_ms=60))
    driver.do(m.CatalogSynced())

    assert driver.engine.wheel.next_occupied() == T0 + HOUR - 60 - 2_000 // 40


def test_a_limit_that_holds_some_of_a_burst_back_is_looked_at_when_their_instant_has_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _ten_at_once(monkeypatch)
    limited = {"trigger": FixedRateTrigger(10_000, T0), "overlap": FORBID}
    driver = Driver(*_hourly(25, **limited))
    driver.do(m.LeadSet(lead_ms=20))
    driver.do(m.CatalogSynced())
    driver.submit("by hand", name="t3")
    [by_hand] = deliveries(driver.pull(free=1))
    driver.at(9_980)
    _steps(driver)
    assert _fired(driver) == {10_000: 24}
    driver.report(succeeded=[by_hand.token])

    driver.at(10_000)

    assert _fired(driver) == {10_000: 25}


def test_timers_of_their_own_that_meet_fire_step_by_step_and_are_no_misfires(monkeypatch: pytest.MonkeyPatch) -> None:
    _ten_at_once(monkeypatch)
    specs = [task_spec(f"t{n}", trigger=FixedRateTrigger(HOUR + n, T0 + 1_000), misfire=SKIP) for n in range(95)]
    driver = Driver.leading(*specs)
    driver.now_ms = T0 + 1_000
    assert _steps(driver, step_ms=300) == [10] * 9 + [5]
    assert _fired(driver) == {1_000: 95}
    assert driver.of(f.Skipped) == []


def test_timers_of_several_tasks_that_meet_fire_step_by_step_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _ten_at_once(monkeypatch)
    specs = [task_spec(f"t{n}", trigger=FixedRateTrigger(HOUR + n // 5, T0 + 1_000), misfire=SKIP) for n in range(45)]
    driver = Driver.leading(*specs)
    driver.now_ms = T0 + 1_000
    assert _steps(driver, step_ms=300) == [10] * 4 + [5]
    assert _fired(driver) == {1_000: 45}


def test_a_task_that_waits_to_be_settled_does_not_fire_with_its_own_timer_before() -> None:
    specs = [task_spec(f"t{number}") for number in range(groups.AT_ONCE + 1)]
    late = task_spec("late", trigger=FixedRateTrigger(700, T0))
    driver = Driver.leading(*specs, late).successor(*specs, late, now_ms=T0 + 69_999)
    assert driver.open_runs("late") == [], "it is the last in turn"
    driver.at(70_000)
    while driver.engine.pause_ms(driver.now_ms) <= 0:
        driver.do(m.Tick())
    task = driver.engine.state.by_uid["uid-late"]
    assert len(task.runs) + task.skipped == 100, "each instant made a run or is counted"


def test_instants_that_a_clock_set_back_brings_again_are_fired_though_their_task_waited_to_be_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (groups, clock):
        monkeypatch.setattr(module, "AT_ONCE", 1)
    every = FixedRateTrigger(100, T0)
    driver = Driver.leading(task_spec(trigger=every), task_spec("other", trigger=every))
    driver.boot_ms = T0
    driver.at(0)
    driver.boot_ms += 950
    driver.at(950)  # both are overdue; one is settled, and the timer of both is set to what comes then
    driver.at(200)  # the wall clock is set back
    assert [fact.scheduled_ms - T0 for fact in driver.of(f.Fired) if fact.tasks == [2]] == [100, 200], (
        "none ahead of it"
    )
    for offset in range(200, 1_251, 10):
        driver.boot_ms += 10
        driver.at(offset)
    done: dict[int, list[int]] = {}
    for fact in driver.of(f.Fired):
        for task in fact.tasks:
            done.setdefault(task, []).append(fact.scheduled_ms - T0)
    skipped = {task: sum(s.count for s in driver.of(f.Skipped) if s.task == task) for task in done}
    assert {task: len(set(fired)) + skipped[task] for task, fired in done.items()} == {1: 12, 2: 12}
