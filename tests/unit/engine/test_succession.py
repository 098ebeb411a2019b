"""Late words of a worker process that was replaced, and of its end, do not cost the process that works now."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.engine.driver import T0, Driver, deliveries, only, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.ledger import facts as f

KEY = m.WorkerKey("shops", "pool", "w0")
OLD, NEW = T0 - 90_000, T0 - 30_000
ENDED = NEW - 400
MANUAL = task_spec(trigger=None)


def process(instance: str, started_ms: int, *, pod_uid: str = "pod-1") -> m.WorkerSeen:
    return m.WorkerSeen(
        key=KEY, instance=instance, started_ms=started_ms, pod_uid=pod_uid, handlers=("greet",), slots=10
    )


def pull(driver: Driver, who: m.WorkerSeen, *, free: int = 10, received: int = 0) -> list[m.Effect]:
    request = object()
    command = m.Pull(request=request, worker=who, free=free, received=received, until_ms=driver.now_ms + 20_000)
    return driver.do(command)


def report(driver: Driver, who: m.WorkerSeen, **what: Any) -> m.Reported:
    return only(driver.do(m.Report(request=object(), worker=who, **what)), m.Reported)


def lost(driver: Driver) -> int:
    return sum(isinstance(fact, f.Failed) and fact.reason is f.FailureReason.LOST for fact in driver.facts)


def at_work(*, known: bool = True) -> tuple[Driver, m.WorkerSeen, int]:
    """A second process works on a run; the leader knew the first one, or took over after it."""
    driver = Driver.leading(MANUAL)
    if known:
        pull(driver, process("old", OLD))
    new = process("new", NEW)
    pull(driver, new)
    driver.do(m.Submit(request=0, namespace="shops", name="hello", runs=[m.Submission(key="a", scheduled_ms=T0)]))
    [token] = driver.engine.state.attempts
    return driver, new, token


@pytest.mark.parametrize("takeover", [False, True], ids=["same leader", "next leader"])
def test_the_end_of_the_container_before_does_not_lose_the_attempt_of_the_process_after_it(takeover: bool) -> None:
    driver, new, token = at_work()
    if takeover:
        driver = driver.successor(MANUAL)
    driver.do(m.WorkerGone(key=KEY, pod_uid="pod-1", before_ms=ENDED))
    assert lost(driver) == 0
    assert report(driver, new, succeeded=[token]).fenced == []


@pytest.mark.parametrize("takeover", [False, True], ids=["same leader", "next leader"])
def test_the_end_of_its_own_container_loses_its_attempt(takeover: bool) -> None:
    driver, _, _ = at_work()
    if takeover:
        driver = driver.successor(MANUAL)
    driver.do(m.WorkerGone(key=KEY, pod_uid="pod-1", before_ms=NEW + 5_000))
    assert lost(driver) == 1


def test_the_end_of_another_pod_of_the_name_does_not_lose_the_attempt() -> None:
    driver, new, token = at_work()
    driver.do(m.WorkerGone(key=KEY, pod_uid="pod-0"))
    assert lost(driver) == 0
    driver.do(m.WorkerGone(key=KEY, pod_uid="pod-1"))
    assert lost(driver) == 1
    assert report(driver, new, succeeded=[token]).fenced == [token]


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("takeover", [False, True], ids=["same leader", "next leader"])
def test_a_late_pull_of_a_replaced_process_is_refused_and_costs_nothing(known: bool, takeover: bool) -> None:
    driver, new, token = at_work(known=known)
    if takeover:
        driver = driver.successor(MANUAL)
    [refused] = pull(driver, process("old", OLD))
    assert isinstance(refused, m.CommandRefused)
    assert refused.reason is m.RefusalReason.NOT_READY
    assert lost(driver) == 0
    assert report(driver, new, succeeded=[token]).fenced == []


@pytest.mark.parametrize("takeover", [False, True], ids=["same leader", "next leader"])
def test_a_late_goodbye_of_a_replaced_process_that_never_had_work_costs_nothing(takeover: bool) -> None:
    driver, new, token = at_work()
    if takeover:
        driver = driver.successor(MANUAL)
    assert report(driver, process("old", OLD), succeeded=[99], leaving=True).fenced == [99]
    assert lost(driver) == 0
    assert report(driver, new, succeeded=[token]).fenced == []


def test_a_new_process_whose_clock_was_set_back_waits_for_the_silence_of_the_one_before() -> None:
    driver, _, _ = at_work()
    set_back = process("newest", OLD)
    assert isinstance(pull(driver, set_back)[0], m.CommandRefused)
    driver.at(120_000)
    pull(driver, set_back)
    assert lost(driver) == 1
    driver.at(121_000)
    assert report(driver, set_back, succeeded=[2]).fenced == [], "the run was leased to it"


@pytest.mark.parametrize("takeover", [False, True], ids=["same leader", "next leader"])
def test_the_first_words_of_the_process_after_it_lose_the_attempts_of_the_one_before(takeover: bool) -> None:
    """Nobody carries them out any more: their runs must not wait for the lease to pass."""
    driver, new, token = at_work()
    if takeover:
        driver = driver.successor(MANUAL)
    later = process("later", NEW + 5_000)
    driver.now_ms += 1_000

    given = deliveries(pull(driver, later))

    assert lost(driver) == 1
    assert [delivery.attempt for delivery in given] == [2]
    assert report(driver, new, succeeded=[token]).fenced == [token]


def test_where_no_process_says_when_it_began_the_one_that_speaks_is_the_later_one() -> None:
    driver = Driver.leading(MANUAL)
    driver.submit("a")
    pull(driver, process("one", 0))
    pull(driver, process("two", 0))
    assert lost(driver) == 1


def test_what_tells_processes_apart_is_in_a_checkpoint() -> None:
    driver, _, _ = at_work()
    later = Driver(now_ms=driver.now_ms)
    later.engine.restore(list(driver.engine.snapshot()))
    assert later.engine.state.workers == driver.engine.state.workers
    assert later.engine.state.worker_numbers == driver.engine.state.worker_numbers


def test_of_two_processes_that_started_at_once_and_had_no_work_the_one_that_speaks_is_the_later_one() -> None:
    driver = Driver.leading(MANUAL)
    pull(driver, process("old", OLD))
    assert not [effect for effect in pull(driver, process("new", OLD)) if isinstance(effect, m.CommandRefused)]
    driver.do(m.Submit(request=0, namespace="shops", name="hello", runs=[m.Submission(key="a", scheduled_ms=T0)]))
    [token] = driver.engine.state.attempts
    assert report(driver, process("new", OLD), succeeded=[token]).fenced == []
