"""What waits stands in one place, a wait that is over stays over, and what ended stands nowhere."""

from __future__ import annotations

import pytest
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.spec import Backoff, Overlap, OverlapPolicy, RetryPolicy
from tickwheel_operator.engine.triggers import FixedRateTrigger
from tickwheel_operator.ledger import facts as f

_ONE = Overlap(policy=OverlapPolicy.QUEUE, max_concurrent=1)


def _two_clocks(*specs: object, lead_ms: int = 0) -> Driver:
    driver = Driver.leading(*specs)  # type: ignore[arg-type]
    driver.boot_ms = T0
    driver.do(m.LeadSet(lead_ms=lead_ms))
    return driver


def _pass(driver: Driver, wall_ms: int, boot_ms: int) -> list[m.Effect]:
    """The two clocks go on, or jump, by this much."""
    driver.now_ms += wall_ms
    assert driver.boot_ms is not None
    driver.boot_ms += boot_ms
    return driver.do(m.Tick())


def _nothing_waits(driver: Driver) -> None:
    pool = driver.engine.router.pools["shops", "pool"]
    assert (pool.waits, pool.aside) == (0, 0)
    for queue in pool.queues.values():
        assert queue.head() is None
        assert queue.ahead_head() is None


# --- a wait that is over ---


def test_a_delay_that_is_over_is_not_waited_for_again_though_the_wall_clock_was_set_back() -> None:
    driver = _two_clocks(task_spec(trigger=None, overlap=_ONE))
    driver.submit("first")
    [first] = deliveries(driver.pull())
    driver.submit("delayed", delay_ms=1_000)
    _pass(driver, -5_000, 0)
    _pass(driver, 1_000, 1_000)  # the delay is over, by the clock that never jumps
    driver.report(succeeded=[first.token])
    [second] = deliveries(driver.pull(received=first.token))
    assert second.not_before_ms == 0


def test_a_delayed_run_that_replaces_another_is_dealt_once() -> None:
    replace = Overlap(policy=OverlapPolicy.REPLACE, max_concurrent=1, key="/k")
    other = task_spec("other", trigger=None, overlap=replace, handler="nobody-has-it")
    driver = _two_clocks(task_spec(trigger=None, overlap=replace), other, lead_ms=50)
    driver.submit("waits", name="other", parameters=b'{"k":1}')
    driver.submit("delayed", parameters=b'{"k":1}', delay_ms=40)
    driver.pull(error_us=100)
    _pass(driver, -5_000, 0)
    [leased] = deliveries(_pass(driver, 40, 40))
    assert leased.not_before_ms == 0


def test_a_run_that_waited_for_its_delay_and_then_for_others_gets_no_instant_in_the_future() -> None:
    driver = _two_clocks(task_spec(trigger=None, overlap=_ONE), lead_ms=50)
    driver.submit("first")
    [first] = deliveries(driver.pull())
    driver.submit("delayed", delay_ms=40)
    _pass(driver, -5_000, 0)
    _pass(driver, 40, 40)
    driver.pull("w1", error_us=100)
    driver.report(succeeded=[first.token])
    [leased] = driver.of(f.Leased)[1:]
    [run] = driver.open_runs()
    assert (leased.dispatches, run.dispatches[0].starts_boot_ms) == ([run.number], 0)


@pytest.mark.parametrize("error_us", [None, 100])
def test_a_backoff_that_is_over_is_not_waited_for_again(error_us: int | None) -> None:
    retry = RetryPolicy(limit=3, backoff=Backoff(initial_ms=1_000, jitter=0))
    driver = _two_clocks(task_spec(trigger=None, retry=retry), lead_ms=50)
    driver.submit("k")
    [first] = deliveries(driver.pull(error_us=error_us))
    driver.report(failed=[m.FailedAttempt(token=first.token, error_type="E")])
    _pass(driver, -5_000, 500)
    _pass(driver, 500, 500)
    [second] = deliveries(driver.pull(received=first.token, error_us=error_us))
    driver.report(returned=[second.token])
    [third] = deliveries(driver.pull(received=second.token, error_us=error_us))
    driver.report(leaving=True)
    assert driver.of(f.Failed)[-1].token == third.token
    [fourth] = deliveries(driver.pull("w1", error_us=error_us))
    assert (fourth.run_id, fourth.not_before_ms) == (first.run_id, 0)


def test_an_early_lease_that_is_given_back_still_waits_for_its_instant() -> None:
    driver = _two_clocks(task_spec(), lead_ms=50)
    _pass(driver, 1_500, 1_500)  # the timer of the first instant was set before the lead
    [first] = deliveries(driver.pull(error_us=100, free=1))
    driver.report(succeeded=[first.token])
    driver.pull(error_us=100, received=first.token)
    [early] = deliveries(_pass(driver, 460, 460))
    assert early.not_before_ms == T0 + 2_000
    driver.report(returned=[early.token])
    assert deliveries(driver.pull("vague")) == []
    [again] = deliveries(_pass(driver, 40, 40))
    assert again.run_id == early.run_id


# --- one place ---


def test_a_worker_whose_early_work_ended_in_the_same_step_still_takes_other_work() -> None:
    driver = _two_clocks(task_spec(trigger=FixedRateTrigger(1_000, T0)), task_spec("other", trigger=None), lead_ms=50)
    _pass(driver, 1_500, 1_500)
    [first] = deliveries(driver.pull(error_us=100, free=1))
    driver.report(succeeded=[first.token])
    driver.pull(error_us=100, free=1, received=first.token)
    driver.now_ms = driver.boot_ms = T0 + 1_960
    driver.do(m.TaskRemoved(uid="uid-hello", forget=True))
    assert [d.scheduled_ms for d in driver.of(f.Fired)] == [T0 + 1_000, T0 + 2_000]
    driver.submit("k", name="other")
    assert len(driver.of(f.Leased)) == 2, "its pull is still open, with room for one"


def test_early_work_of_a_pull_goes_to_no_later_pull_that_has_no_room() -> None:
    driver = _two_clocks(task_spec(), lead_ms=50)
    _pass(driver, 1_500, 1_500)
    [first] = deliveries(driver.pull(error_us=100, free=1))
    driver.report(succeeded=[first.token])
    driver.pull(error_us=100, free=1, received=first.token)
    driver.now_ms = driver.boot_ms = T0 + 1_960
    driver.pull(error_us=100, free=0, received=first.token)  # in the same step the early run was reserved
    assert len(driver.of(f.Leased)) == 1
    [early] = deliveries(driver.pull("w1", error_us=100))
    assert early.not_before_ms == T0 + 2_000


def test_early_work_of_a_pull_goes_with_the_pull_that_replaces_it() -> None:
    driver = _two_clocks(task_spec(), lead_ms=50)
    _pass(driver, 1_500, 1_500)
    [first] = deliveries(driver.pull(error_us=100, free=1))
    driver.report(succeeded=[first.token])
    driver.pull(error_us=100, free=1, received=first.token)
    driver.now_ms = driver.boot_ms = T0 + 1_960
    [early] = deliveries(driver.pull(error_us=100, free=1, received=first.token))
    assert early.not_before_ms == T0 + 2_000


# --- what ended ---


def test_a_task_that_is_deleted_with_two_overlapping_backfills_leaves_nothing_behind() -> None:
    now = 100_500
    spec = task_spec(trigger=FixedRateTrigger(1_000, T0), created_ms=T0 + now, dispatch_timeout_ms=3_000)
    driver = Driver.leading(spec, now_ms=T0 + now)
    driver.backfill(1_000, 30_000, max_parallel=2)
    driver.backfill(1_000, 30_000, max_parallel=3, key="another")
    driver.do(m.TaskRemoved(uid=spec.uid, forget=True))
    assert driver.engine.state.runs == {}
    _nothing_waits(driver)
    for second in range(1, 6):
        driver.at(now + second * 1_000)
    assert deliveries(driver.pull()) == []


@pytest.mark.parametrize("policy", [OverlapPolicy.QUEUE, OverlapPolicy.ALLOW])
def test_a_task_that_is_deleted_with_runs_in_every_place_leaves_nothing_behind(policy: OverlapPolicy) -> None:
    overlap = Overlap(policy=policy, max_concurrent=2)
    spec = task_spec(trigger=None, overlap=overlap, dispatch_timeout_ms=3_000, retry=RetryPolicy(limit=5))
    driver = _two_clocks(spec, lead_ms=50)
    for key in range(4):
        driver.submit(f"{key}")
    driver.submit("delayed", delay_ms=10_000)
    driver.submit("near", delay_ms=20)
    [one, _] = deliveries(driver.pull(free=2))
    driver.report(failed=[m.FailedAttempt(token=one.token, error_type="E")])
    driver.do(m.TaskRemoved(uid=spec.uid, forget=True))
    _nothing_waits(driver)
    for _ in range(6):
        _pass(driver, 3_000, 3_000)
    assert driver.engine.state.runs == {}


def test_a_run_that_is_cancelled_while_it_waits_leaves_no_timer_behind() -> None:
    driver = Driver.leading(task_spec(trigger=None, dispatch_timeout_ms=3_000))
    submitted = driver.submit("k")
    assert isinstance(submitted, m.Submitted)
    driver.cancel(submitted.runs[0].run_id)
    _nothing_waits(driver)
    assert driver.engine.delays.next_occupied() is None


def test_a_run_that_nobody_takes_leaves_nothing_behind() -> None:
    driver = Driver.leading(task_spec(trigger=None, dispatch_timeout_ms=3_000, retry=RetryPolicy(limit=0)))
    driver.submit("k")
    driver.at(3_000)
    assert driver.of(f.Undelivered)
    _nothing_waits(driver)
    assert driver.engine.delays.next_occupied() is None


def test_a_dispatch_timeout_goes_on_while_its_task_is_edited() -> None:
    driver = Driver.leading(task_spec(trigger=None, dispatch_timeout_ms=500))
    driver.submit("k")
    driver.at(400, m.TaskApplied(spec=task_spec(trigger=None, dispatch_timeout_ms=500, generation=2)))
    driver.at(500)
    assert len(driver.of(f.Undelivered)) == 1
