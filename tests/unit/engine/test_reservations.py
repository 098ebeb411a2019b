"""What is leased ahead of its instant: who comes first, what a worker that goes gives back, and how long it lasts."""

from __future__ import annotations

from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.spec import Backoff, EngineConfig, RetryPolicy
from tickwheel_operator.engine.triggers import FixedRateTrigger
from tickwheel_operator.ledger import facts as f


def _near_an_instant(*others: object, free: int = 10, lead_ms: int = 50, **options: object) -> Driver:
    """The first instant is done, and a worker that knows the time waits for the next, at 2,000."""
    driver = Driver.leading(task_spec(trigger=FixedRateTrigger(1_000, T0)), *others, **options)  # type: ignore[arg-type]
    driver.do(m.LeadSet(lead_ms=lead_ms))
    driver.at(1_500)
    [first] = deliveries(driver.pull(error_us=100, free=free))
    driver.report(succeeded=[first.token])
    driver.pull(error_us=100, free=free, received=first.token)
    return driver


def _leased(driver: Driver) -> list[int]:
    return [number for fact in driver.of(f.Leased) for number in fact.dispatches]


def test_an_early_lease_takes_no_place_from_what_waits_already() -> None:
    retry = RetryPolicy(limit=3, backoff=Backoff(initial_ms=1_000, jitter=0))
    driver = Driver.leading(task_spec(trigger=None, retry=retry))
    driver.do(m.LeadSet(lead_ms=50))
    driver.submit("again")
    [failed] = deliveries(driver.pull(error_us=100))
    driver.report(failed=[m.FailedAttempt(token=failed.token, error_type="E")])
    driver.submit("delayed", delay_ms=945)
    driver.pull(error_us=100, free=1, received=failed.token)
    [first] = deliveries(driver.at(960))  # the delay is over since 15 ms, the backoff only in 40 ms
    runs = {run.id: run.key for run in driver.open_runs()}
    assert runs[first.run_id] == "delayed"


def test_a_place_that_was_reserved_for_a_run_that_ended_is_free_for_one_other() -> None:
    for free in (1, 2):
        driver = _near_an_instant(task_spec("other", trigger=None), free=free)
        driver.now_ms = T0 + 1_960
        driver.do(m.TaskRemoved(uid="uid-hello", forget=True))
        assert [fact.scheduled_ms - T0 for fact in driver.of(f.Fired)] == [1_000, 2_000], "it was reserved, and ended"
        before = len(_leased(driver))
        runs = [m.Submission(key=f"{key}", scheduled_ms=driver.now_ms) for key in range(4)]
        driver.do(m.Submit(request="many", namespace="shops", name="other", runs=runs))
        assert len(_leased(driver)) - before == free


def test_what_was_reserved_at_a_worker_whose_pull_ends_in_that_moment_waits_for_its_instant() -> None:
    driver = _near_an_instant()
    pull = driver._requests
    driver.pull("vague")
    driver.at(1_960, m.PullEnded(request=pull))
    assert [fact.scheduled_ms - T0 for fact in driver.of(f.Fired)] == [1_000, 2_000]
    assert len(_leased(driver)) == 1
    assert driver.at(1_999) == []
    [delivery] = deliveries(driver.at(2_000))
    assert delivery.scheduled_ms == T0 + 2_000


def test_what_was_reserved_at_a_worker_that_goes_in_that_moment_waits_for_its_instant() -> None:
    driver = _near_an_instant()
    driver.pull("vague")
    driver.at(1_960, m.WorkerGone(key=m.WorkerKey("shops", "pool", "w0")))
    assert [fact.scheduled_ms - T0 for fact in driver.of(f.Fired)] == [1_000, 2_000]
    assert len(_leased(driver)) == 1
    assert driver.at(1_999) == []
    [delivery] = deliveries(driver.at(2_000))
    assert delivery.scheduled_ms == T0 + 2_000


def test_a_renewed_early_lease_lasts_from_its_instant_on() -> None:
    driver = _near_an_instant(lead_ms=450, config=EngineConfig(lease_ms=1_000))
    driver.at(1_550)
    [token] = driver.engine.state.attempts
    driver.at(1_560)
    driver.report(renew=[token])
    driver.at(2_900)
    assert token in driver.engine.state.attempts, "a lease of 1,000 ms from 2,000 on"
    driver.at(3_100)
    assert token not in driver.engine.state.attempts


def test_an_early_lease_that_is_sent_again_lasts_from_its_instant_on() -> None:
    driver = _near_an_instant(lead_ms=450, config=EngineConfig(lease_ms=1_000))
    driver.at(1_550)
    [token] = driver.engine.state.attempts
    driver.at(1_560)
    assert [d.token for d in deliveries(driver.pull(error_us=100))] == [token]
    driver.at(2_900)
    assert token in driver.engine.state.attempts


def test_a_lost_early_lease_names_its_instant_to_a_successor_though_the_clocks_differ_by_a_millisecond() -> None:
    driver = _near_an_instant()
    driver.boot_ms = T0 + 1_960
    driver.at(1_960)
    assert len(_leased(driver)) == 2
    driver.now_ms, driver.boot_ms = T0 + 1_969, T0 + 1_970
    driver.do(m.WorkerGone(key=m.WorkerKey("shops", "pool", "w0")))
    [lost] = driver.of(f.Failed)
    assert (lost.reason, lost.retry_ms - T0) == (f.FailureReason.LOST, 2_000)


def test_an_early_lease_that_is_given_back_waits_for_its_instant_under_a_successor_too() -> None:
    driver = _near_an_instant()
    [early] = deliveries(driver.at(1_960))
    driver.report(returned=[early.token])
    later = driver.successor(task_spec(trigger=FixedRateTrigger(1_000, T0)))
    assert deliveries(later.pull("vague")) == []
    assert later.at(1_999) == []
    [again] = deliveries(later.at(2_000))
    assert (again.run_id, again.attempt) == (early.run_id, 1)


def test_the_soonest_of_the_leases_that_were_gathered_says_when_they_must_go() -> None:
    driver = Driver.leading(task_spec(), task_spec("now", trigger=None))
    driver.do(m.LeadSet(lead_ms=50))
    driver.at(1_500)
    [first] = deliveries(driver.pull(error_us=100))
    driver.report(succeeded=[first.token])
    driver.engine.gather()
    driver.pull(error_us=100, received=first.token)
    driver.at(1_960)
    assert [driver.engine.answers_within(ahead_ms) for ahead_ms in (0, 39, 40)] == [False, False, True]
    driver.submit("k", "now")
    assert driver.engine.answers_within(0)
    driver.engine.answers()
    driver.pull(error_us=100, received=3)
    driver.submit("another", "now")
    driver.at(2_960)
    assert driver.engine.answers_within(0), "what may start now waits no longer for what comes after it"


def test_what_is_over_by_the_wall_clock_only_is_leased_when_its_wait_is_over() -> None:
    retry = RetryPolicy(limit=3, backoff=Backoff(initial_ms=1_000, jitter=0))
    driver = Driver.leading(task_spec(trigger=None, retry=retry))
    driver.boot_ms = T0
    driver.do(m.LeadSet(lead_ms=50))
    driver.submit("k")
    [first] = deliveries(driver.pull(error_us=100))
    driver.report(failed=[m.FailedAttempt(token=first.token, error_type="E")])
    driver.pull(error_us=100, received=first.token)
    driver.now_ms, driver.boot_ms = T0 + 6_000, T0 + 960  # it was set ahead
    assert driver.do(m.Tick()) == []
    driver.now_ms, driver.boot_ms = T0 + 6_040, T0 + 1_000
    [again] = deliveries(driver.do(m.Tick()))
    assert again.not_before_ms == 0
