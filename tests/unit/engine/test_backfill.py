"""Backfills: one run per instant of the past, bounded, resumable, behind what is due now."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.sources import Completion, Outcome
from tickwheel_operator.engine.spec import EngineConfig, Overlap, OverlapPolicy, RetryPolicy, TaskSpec
from tickwheel_operator.engine.triggers import FixedRateTrigger
from tickwheel_operator.ledger import facts as f

NOW = 100_500


def _spec(**changes: Any) -> TaskSpec:
    trigger = FixedRateTrigger(1_000, T0)
    return task_spec(trigger=trigger, created_ms=T0 + NOW, retry=RetryPolicy(limit=0), **changes)


def _leading(**changes: Any) -> Driver:
    return Driver.leading(_spec(**changes), now_ms=T0 + NOW)


def _work(driver: Driver, outcome: str = "ok", most: int = 1_000) -> list[int]:
    """Do what there is to do, with one worker; the logical instants in the order in which it came."""
    done: list[int] = []
    token = 0
    while len(done) < most and (got := deliveries(driver.pull(received=token))):
        token = got[-1].token
        done += [d.scheduled_ms - T0 for d in got]
        if outcome == "ok":
            driver.report(succeeded=[d.token for d in got])
        else:
            driver.report(failed=[m.FailedAttempt(token=d.token, error_type="E") for d in got])
    return done


def test_a_backfill_makes_one_run_per_instant_and_ends_with_the_last() -> None:
    driver = _leading()
    answer = driver.backfill(1_000, 11_000, max_parallel=3)
    assert isinstance(answer, m.Submitted)
    assert len(driver.open_runs()) == 1 + 3, "itself, and three at a time"
    done = _work(driver)
    assert done == [second * 1_000 for second in range(1, 11)]
    ended = driver.engine.state.by_uid["uid-hello"].history_succeeded[-1]
    assert (ended.run_id, ended.total, ended.succeeded, ended.failed) == (answer.runs[0].run_id, 10, 10, 0)
    again = driver.backfill(1_000, 11_000)
    assert isinstance(again, m.Submitted)
    assert (again.runs[0].created, again.runs[0].state) == (False, m.RunState.SUCCEEDED)


def test_overlapping_backfills_make_up_for_each_instant_once() -> None:
    driver = _leading()
    driver.backfill(5_000, 15_000, max_parallel=2)
    driver.backfill(1_000, 10_000, max_parallel=2)
    done = _work(driver)
    assert sorted(done) == [second * 1_000 for second in range(1, 15)]
    third = driver.backfill(0, 20_000)
    assert isinstance(third, m.Submitted)
    assert _work(driver) == [0, *(second * 1_000 for second in range(15, 20))]


def test_a_successor_goes_on_where_the_leader_before_was() -> None:
    driver = _leading()
    driver.backfill(1_000, 11_000, max_parallel=2)
    first = _work(driver, most=4)
    new = driver.successor(_spec(), now_ms=driver.now_ms)
    rest = _work(new)
    assert sorted(first + rest) == [second * 1_000 for second in range(1, 11)]
    assert not new.open_runs()


def test_a_backfill_says_how_many_failed() -> None:
    driver = _leading()
    driver.backfill(1_000, 4_000)
    _work(driver, "error")
    ended = driver.engine.state.by_uid["uid-hello"].history_failed[-1]
    assert (ended.state, ended.succeeded, ended.failed) == (m.RunState.FAILED, 0, 3)
    assert "3 of 3" in ended.message


def test_what_failed_is_run_again_by_the_next_backfill_and_what_succeeded_is_not() -> None:
    driver = _leading()
    driver.backfill(1_000, 4_000)
    _work(driver, "error")
    driver.backfill(2_000, 8_000)
    _work(driver)
    third = driver.backfill(0, 10_000)
    assert _work(driver) == [0, 1_000, 8_000, 9_000]
    ended = {e.run_id: e for e in driver.engine.state.by_uid["uid-hello"].history_succeeded}
    assert isinstance(third, m.Submitted)
    assert ended[third.runs[0].run_id].succeeded == 10, "six of them by the one before"


def test_a_backfill_counts_what_is_made_up_for_only_as_far_as_it_goes() -> None:
    driver = _leading()
    driver.backfill(0, 10_000)
    _work(driver)
    driver.backfill(2_000, 5_000)
    ended = driver.engine.state.by_uid["uid-hello"].history_succeeded[-1]
    assert (ended.total, ended.succeeded) == (3, 3)
    assert driver.of(f.Backfilled)[-1].until_ms == T0 + 4_999


def test_a_backfill_waits_for_what_another_has_begun() -> None:
    driver = _leading()
    driver.backfill(1_000, 3_000)
    [first, second] = deliveries(driver.pull(slots=10, free=10))
    driver.backfill(0, 4_000)
    assert [run.scheduled_ms - T0 for run in driver.open_runs() if run.parent and not run.dispatches[0].token] == [0]
    driver.report(succeeded=[first.token], failed=[m.FailedAttempt(token=second.token, error_type="E")])
    assert sorted(_work(driver)) == [0, 2_000, 3_000]
    histories = driver.engine.state.by_uid["uid-hello"]
    outcomes = [(e.total, e.succeeded, e.failed) for e in (*histories.history_failed, *histories.history_succeeded)]
    assert (2, 1, 1) in outcomes
    assert (4, 4, 0) in outcomes


def test_with_another_trigger_the_same_span_has_other_instants() -> None:
    driver = _leading()
    driver.backfill(0, 2_000)
    assert _work(driver) == [0, 1_000]
    driver.do(m.TaskApplied(spec=task_spec(
        trigger=FixedRateTrigger(500, T0), created_ms=T0 + NOW, retry=RetryPolicy(limit=0), generation=2
    )))  # fmt: skip
    driver.backfill(0, 2_000, key="again")
    assert _work(driver) == [0, 500, 1_000, 1_500]


def test_a_backfill_is_no_run_of_its_own_in_the_counters() -> None:
    driver = _leading()
    driver.backfill(0, 5_000)
    _work(driver)
    assert driver.engine.state.by_uid["uid-hello"].succeeded == 5


def test_what_is_due_now_goes_before_a_backfill_and_finds_a_free_slot() -> None:
    driver = _leading()
    driver.backfill(1_000, 50_000, max_parallel=40)
    driver.at(101_000)
    got = deliveries(driver.pull(slots=10, free=10))
    assert got[0].scheduled_ms == T0 + 101_000
    assert len(got) == 9, "one slot is left for what is due next"


def test_a_cancelled_backfill_stops_its_runs_and_then_ends() -> None:
    driver = _leading()
    answer = driver.backfill(1_000, 50_000, max_parallel=3)
    assert isinstance(answer, m.Submitted)
    [running] = deliveries(driver.pull(free=2))
    driver.cancel(answer.runs[0].run_id)
    assert len(driver.open_runs()) == 2, "itself, and the one that a worker holds"
    driver.report(failed=[m.FailedAttempt(token=running.token, error_type="Cancelled")])
    assert driver.open_runs() == []
    assert driver.engine.state.by_uid["uid-hello"].history_failed[-1].state is m.RunState.CANCELLED


@pytest.mark.parametrize(
    ("span", "says"),
    [((5_000, 5_000), "before"), ((5_000, 200_000), "future"), ((1_100, 1_200), "no instant")],
)
def test_a_backfill_that_makes_no_sense_is_refused_with_the_reason(span: tuple[int, int], says: str) -> None:
    refused = _leading().backfill(*span)
    assert isinstance(refused, m.CommandRefused)
    assert refused.reason is m.RefusalReason.NOT_POSSIBLE
    assert says in refused.detail


def test_a_task_without_instants_cannot_be_backfilled() -> None:
    refused = Driver.leading(task_spec(trigger=None), now_ms=T0 + NOW).backfill(0, 1_000)
    assert isinstance(refused, m.CommandRefused)
    assert "trigger" in refused.detail


def test_a_deleted_task_takes_its_backfill_along() -> None:
    driver = _leading()
    driver.backfill(1_000, 50_000, max_parallel=3)
    driver.do(m.TaskRemoved(uid="uid-hello"))
    assert driver.engine.state.runs == {}
    driver.at(NOW + 5_000)
    driver.forget()
    assert driver.of(f.TaskForgotten)


def test_a_worker_that_takes_one_at_a_time_does_a_backfill_too() -> None:
    driver = Driver.leading(_spec(), now_ms=T0 + NOW, config=EngineConfig(max_leases_per_pull=1))
    driver.backfill(1_000, 4_000)
    assert _work(driver) == [1_000, 2_000, 3_000]


@pytest.mark.parametrize("what", ["invalid", "held"])
def test_a_backfill_makes_no_run_while_its_task_is_invalid_or_the_intake_is_held_and_goes_on_later(what: str) -> None:
    driver = _leading(suspend=True)
    driver.backfill(1_000, 5_000, max_parallel=1)
    [first] = deliveries(driver.pull())
    if what == "invalid":
        driver.do(m.TaskRemoved(uid="uid-hello", forget=False))
    else:
        driver.do(m.IntakeHeld(reason="the store is full"))
    driver.report(succeeded=[first.token])
    driver.at(NOW + 2_000)
    assert deliveries(driver.pull(received=first.token)) == []
    assert sum(len(fact.instants) for fact in driver.of(f.Backfilled)) == 1
    driver.do(m.IntakeHeld(reason=""))
    driver.do(m.TaskApplied(spec=_spec(suspend=True, generation=3)))
    [second] = deliveries(driver.at(NOW + 5_000))
    assert second.scheduled_ms == T0 + 2_000


def test_nobody_follows_the_runs_of_a_backfill_nor_the_backfill() -> None:
    """What is made up for is no news."""
    follower = task_spec("next", source=Completion("hello", Outcome.ANY))
    driver = Driver.leading(_spec(suspend=True), follower, now_ms=T0 + NOW)
    driver.backfill(1_000, 5_000)
    assert _work(driver) == [1_000, 2_000, 3_000, 4_000]
    assert driver.of(f.BackfillEnded)
    assert driver.open_runs("next") == []


def test_a_backfill_is_bounded_by_its_own_limit_and_not_by_the_tasks() -> None:
    driver = _leading(suspend=True, overlap=Overlap(policy=OverlapPolicy.QUEUE, max_concurrent=1))
    driver.backfill(1_000, 9_000, max_parallel=3)
    assert len(deliveries(driver.pull())) == 3


def test_a_backfill_that_is_cancelled_between_its_runs_ends_at_once() -> None:
    driver = _leading(suspend=True)
    answer = driver.backfill(1_000, 9_000, max_parallel=1)
    assert isinstance(answer, m.Submitted)
    [first] = deliveries(driver.pull())
    driver.do(m.IntakeHeld(reason="the store is full"))
    driver.report(succeeded=[first.token])
    [cancelled] = driver.cancel(answer.runs[0].run_id)
    assert isinstance(cancelled, m.Submitted)
    assert cancelled.runs[0].state is m.RunState.CANCELLED
    assert driver.engine.state.runs == {}


def test_a_deletion_makes_no_run_of_a_backfill_while_it_ends_those_that_are_open() -> None:
    driver = _leading(suspend=True)
    driver.backfill(1_000, 30_000, max_parallel=2)
    driver.backfill(1_000, 30_000, max_parallel=3, key="another")
    made = len(driver.of(f.Backfilled))
    driver.do(m.TaskRemoved(uid="uid-hello", forget=True))
    assert len(driver.of(f.Backfilled)) == made
