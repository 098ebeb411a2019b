"""Bad reports, edits at a bad moment and queues of what is gone: each was found by reading, and broke the engine."""

from __future__ import annotations

import pytest
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.spec import EngineConfig, Guarantee, RetryPolicy
from tickwheel_operator.ledger import facts as f


def _pull_as(driver: Driver, instance: str, request: int) -> list[m.Delivery]:
    seen = driver.seen("w0", instance=instance)
    return deliveries(driver.do(m.Pull(request=request, worker=seen, free=1, until_ms=driver.now_ms + 1)))


def test_a_lease_that_is_given_back_twice_in_one_report_is_given_back_once() -> None:
    manual = task_spec(trigger=None)
    driver = Driver.leading(manual)
    driver.submit("a")
    [delivery] = deliveries(driver.pull())

    answer = driver.report(returned=[delivery.token, delivery.token])

    assert answer.fenced == []
    assert driver.of(f.Returned) == [f.Returned([delivery.token])]
    assert len(driver.successor(manual).engine.state.runs) == 1


def test_a_fact_that_does_not_fit_the_state_is_not_among_those_to_be_written() -> None:
    driver = Driver.leading()

    with pytest.raises(KeyError):
        driver.engine.journal.emit(f.Succeeded([7]))

    assert f.Succeeded([7]) not in driver.engine.journal.facts


def test_a_silent_worker_is_lost_also_when_its_task_has_moved_to_a_pool_that_nobody_knows() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.submit("a")
    assert deliveries(driver.pull())
    driver.do(m.TaskApplied(spec=task_spec(trigger=None, pool="other", generation=2)))

    for second in range(1, 60):
        driver.at(second * 1_000)

    assert [fact.reason for fact in driver.of(f.Failed)] == [f.FailureReason.LOST]
    assert driver.engine.router.pool("shops", "other").backlog() == 1


def test_cancelled_runs_do_not_count_as_backlog() -> None:
    driver = Driver.leading(task_spec(trigger=None), config=EngineConfig(max_backlog=3))
    for key in "abc":
        submitted = driver.submit(key)
        assert isinstance(submitted, m.Submitted)
        driver.do(m.CancelRun(request=99, run_id=submitted.runs[0].run_id))

    assert isinstance(driver.submit("d"), m.Submitted)


def test_dead_letters_of_a_handler_that_nobody_has_do_not_hold_up_the_rest_of_the_pool() -> None:
    nobody = task_spec("nobody", handler="nobody", dispatch_timeout_ms=2_000, retry=RetryPolicy(limit=0))
    driver = Driver.leading(nobody, task_spec("fine"), config=EngineConfig(max_backlog=20))

    for second in range(1, 200):
        driver.at(second * 1_000)
        done = [delivery.token for delivery in deliveries(driver.pull(received=driver.engine.state.next_token))]
        driver.report(succeeded=done)

    assert driver.of(f.Skipped) == []
    queue = driver.engine.router.pool("shops", "pool").queue("nobody")
    assert len(queue.due) < 100, "what is gone leaves the queue, though no worker ever comes"


def test_a_dispatch_that_went_to_another_pool_and_back_is_dealt_once() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    for number in range(100):
        driver.submit(f"k{number}")
    for generation, pool in ((2, "other"), (3, "pool"), (4, "other"), (5, "pool")):
        driver.do(m.TaskApplied(spec=task_spec(trigger=None, pool=pool, generation=generation)))
    pool = driver.engine.router.pool("shops", "pool")
    assert pool.backlog() == 100
    assert driver.engine.router.pool("shops", "other").backlog() == 0

    got = deliveries(driver.pull(free=300))

    assert len({delivery.run_id for delivery in got}) == len(got) == 100
    assert pool.backlog() == 0


def test_the_dispatch_timeout_begins_anew_when_a_worker_gives_the_dispatch_back() -> None:
    spec = task_spec(trigger=None, dispatch_timeout_ms=30_000, retry=RetryPolicy(limit=0))
    driver = Driver.leading(spec)
    driver.submit("a")
    driver.at(29_000)
    [delivery] = deliveries(driver.pull())
    driver.at(29_900)
    driver.report(returned=[delivery.token])

    driver.at(30_000)
    assert driver.of(f.Undelivered) == []
    driver.at(59_899)
    assert driver.of(f.Undelivered) == []
    driver.at(59_900)
    assert driver.of(f.Undelivered) == [f.Undelivered(1, 0)]


def test_a_task_that_was_invalid_since_before_this_leader_is_forgotten_when_it_is_deleted() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.submit("a")
    later = Driver(now_ms=T0)
    later.engine.replay(driver.facts)
    later.do(m.TaskRemoved(uid="uid-hello", forget=False))
    later.do(m.CatalogSynced())

    later.do(m.TaskRemoved(uid="uid-hello"))
    later.forget()

    assert later.engine.state.by_uid == {}
    assert later.of(f.TaskForgotten) == [f.TaskForgotten(1)]


def test_a_late_report_of_a_replaced_process_does_not_cost_the_new_one_its_work() -> None:
    driver = Driver.leading(task_spec(trigger=None, guarantee=Guarantee.AT_MOST_ONCE))
    driver.submit("a")
    [old] = _pull_as(driver, "old", 1)
    driver.submit("b")
    [new] = _pull_as(driver, "new", 2)

    assert driver.report(instance="old", succeeded=[old.token], leaving=True).fenced == [old.token]
    assert driver.report(instance="new", succeeded=[new.token]).fenced == []
    assert driver.of(f.Succeeded) == [f.Succeeded([new.token])]


def test_a_lease_that_is_given_back_changes_the_picture_of_its_task() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.submit("a")
    [delivery] = deliveries(driver.pull())
    driver.engine.views(10)

    driver.report(returned=[delivery.token])

    assert [run.state for run in driver.engine.views(10).tasks[0].runs] == [m.RunState.PENDING]


def test_each_run_that_an_object_asked_for_is_shown_ended_though_more_end_at_once_than_the_history_keeps() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    for number in range(50):
        driver.submit(f"k{number}", object_name=f"o{number}")
    got = deliveries(driver.pull(free=100))
    driver.engine.views(10)

    driver.report(succeeded=[delivery.token for delivery in got])

    [view] = driver.engine.views(10).tasks
    assert sorted(run.name for run in view.runs) == sorted(f"o{number}" for number in range(50))
    assert {run.state for run in view.runs} == {m.RunState.SUCCEEDED}
