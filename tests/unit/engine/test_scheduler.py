"""Arming and firing: watermarks, edits, downtime, deletion."""

from __future__ import annotations

from tests.unit.engine.driver import T0, Driver, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.spec import Misfire, MisfirePolicy
from tickwheel_operator.engine.triggers import FixedRateTrigger
from tickwheel_operator.ledger import facts as f


def _instants(driver: Driver) -> list[int]:
    return [fired.scheduled_ms - T0 for fired in driver.of(f.Fired) for _ in fired.tasks]


def test_listing_new_tasks_decides_nothing() -> None:
    driver = Driver.leading(*(task_spec(f"t{n}") for n in range(1_000)))

    assert driver.facts == []


def test_tasks_with_one_trigger_fire_as_one_fact() -> None:
    driver = Driver.leading(*(task_spec(f"t{n}") for n in range(50)))

    driver.at(1_000)

    [fired] = driver.of(f.Fired)
    assert len(fired.tasks) == 50


def test_a_new_leader_goes_on_after_the_last_instant_that_was_fired() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    driver.at(2_000)

    new = driver.successor(task_spec(), now_ms=T0 + 2_900)
    new.at(3_000)

    assert _instants(new) == [1_000, 2_000, 3_000]


def test_instants_of_a_downtime_follow_the_misfire_policy() -> None:
    wanted = {
        MisfirePolicy.SKIP: [10_000],
        MisfirePolicy.FIRE_ONCE: [8_000, 10_000],
        MisfirePolicy.FIRE_ALL: [6_000, 7_000, 8_000, 10_000],
    }
    for policy, instants in wanted.items():
        spec = task_spec(misfire=Misfire(policy=policy, max_catch_up=3))
        driver = Driver.leading(spec)
        driver.at(1_000)

        new = driver.successor(spec, now_ms=T0 + 10_000)

        late = [9_000] if 9_000 >= 10_000 - 1_000 else []
        assert sorted(_instants(new)) == sorted([1_000, *instants, *late]), policy
        skipped = sum(skip.count for skip in new.of(f.Skipped))
        assert skipped + len(_instants(new)) == 10, "every instant is fired or accounted for"


def test_instants_beyond_the_starting_deadline_never_fire() -> None:
    spec = task_spec(misfire=Misfire(policy=MisfirePolicy.FIRE_ALL, starting_deadline_ms=2_500))
    driver = Driver.leading(spec)
    driver.at(1_000)

    new = driver.successor(spec, now_ms=T0 + 10_000)

    assert _instants(new) == [1_000, 8_000, 9_000, 10_000]
    assert [skip.reason for skip in new.of(f.Skipped)] == [f.SkipReason.DEADLINE]


def test_an_edited_trigger_takes_effect_at_once_without_past_instants() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    driver.at(1_500, m.TaskApplied(spec=task_spec(generation=2, trigger=FixedRateTrigger(100, T0))))

    driver.at(1_600)
    driver.at(1_700)

    assert _instants(driver) == [1_000, 1_600, 1_700]


def test_an_edit_of_something_else_keeps_the_schedule_and_its_place() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_500, m.TaskApplied(spec=task_spec(generation=2, parameters=b'{"a":1}')))

    new = driver.successor(task_spec(generation=2, parameters=b'{"a":1}'), now_ms=T0 + 2_100)

    assert _instants(new) == [1_000, 2_000]


def test_a_suspended_task_does_not_fire_and_its_misfire_policy_settles_what_passed_meanwhile() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    driver.at(1_500, m.TaskApplied(spec=task_spec(generation=2, suspend=True)))
    driver.at(5_500, m.TaskApplied(spec=task_spec(generation=3)))

    driver.at(6_000)

    assert _instants(driver) == [1_000, 4_000, 5_000, 6_000], "4,000 stands for what was missed, 5,000 is merely late"
    assert [(skip.count, skip.reason) for skip in driver.of(f.Skipped)] == [(2, f.SkipReason.COALESCED)]


def test_a_task_edited_to_be_invalid_stops_firing_and_keeps_its_history() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    driver.at(1_500, m.TaskRemoved(uid="uid-hello", forget=False))

    driver.at(5_000)

    assert _instants(driver) == [1_000]
    assert driver.engine.state.by_uid["uid-hello"].last_scheduled_ms == T0 + 1_000


def test_a_deleted_task_ends_its_open_runs_and_is_forgotten() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)

    driver.at(1_500, m.TaskRemoved(uid="uid-hello"))

    assert driver.engine.state.by_uid == {}
    assert driver.engine.state.runs == {}
    assert len(driver.of(f.Cancelled)) == 1


def test_a_task_deleted_while_no_leader_watched_is_forgotten_by_the_next_one() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)

    new = driver.successor()

    assert new.engine.state.by_uid == {}


def test_a_clock_that_goes_back_fires_nothing_twice() -> None:
    driver = Driver.leading(task_spec())
    driver.at(3_000)
    fired = _instants(driver)

    driver.at(1_000)
    driver.at(3_000)

    assert _instants(driver) == fired


def test_an_edit_seen_by_a_leader_whose_clock_is_behind_fires_nothing_twice() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    driver.at(2_000)
    edited = task_spec(generation=2, trigger=FixedRateTrigger(500, T0))

    new = driver.successor(edited, now_ms=T0 + 400)
    for offset in (1_000, 1_500, 2_000, 2_500):
        new.at(offset)

    assert _instants(new) == [1_000, 2_000, 2_500]


def test_a_task_that_is_settled_ahead_does_not_hold_back_the_others_of_its_trigger() -> None:
    ahead = task_spec("ahead", created_ms=T0 + 5_000)
    driver = Driver.leading(ahead, task_spec("due"))

    for offset in (1_000, 2_000):
        driver.at(offset)

    assert _instants(driver) == [1_000, 2_000]
