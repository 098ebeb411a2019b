"""Attempts: who gets them, who may report them, and what becomes of those that are lost."""

from __future__ import annotations

from tests.unit.engine.driver import T0, Driver, deliveries, only, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.spec import Backoff, EngineConfig, Guarantee, Overlap, OverlapPolicy, RetryPolicy
from tickwheel_operator.ledger import facts as f


def test_a_waiting_worker_gets_the_run_in_the_step_that_fires_it() -> None:
    driver = Driver.leading(task_spec())
    assert driver.pull() == []

    [delivery] = deliveries(driver.at(1_000))

    assert delivery.run_id == f"uid-hello.{delivery.scheduled_ms}"
    assert [type(fact) for fact in driver.facts] == [f.Clock, f.TaskNamed, f.Fired, f.WorkerNamed, f.Leased]


def test_work_goes_round_the_workers_that_have_the_handler() -> None:
    driver = Driver.leading(*(task_spec(f"t{n}") for n in range(6)))
    driver.pull("w0", free=10)
    driver.pull("w1", free=10)
    driver.pull("other", free=10, handlers=("something-else",))

    effects = driver.at(1_000)

    got = [len(effect.deliveries) for effect in effects if isinstance(effect, m.Pulled)]
    assert got == [3, 3]


def test_a_worker_never_gets_more_than_its_free_slots() -> None:
    driver = Driver.leading(*(task_spec(f"t{n}") for n in range(6)))
    driver.pull(free=2)

    assert len(deliveries(driver.at(1_000))) == 2


def test_a_report_ends_the_run_once_and_is_fenced_the_second_time() -> None:
    driver = Driver.leading(task_spec())
    driver.pull()
    [delivery] = deliveries(driver.at(1_000))

    assert driver.report(succeeded=[delivery.token]).fenced == []
    assert driver.report(succeeded=[delivery.token]).fenced == [delivery.token]
    assert driver.engine.stats.fenced == 1
    assert driver.engine.state.by_uid["uid-hello"].succeeded == 1


def test_another_worker_cannot_report_an_attempt_that_it_does_not_hold() -> None:
    driver = Driver.leading(task_spec())
    driver.pull()
    [delivery] = deliveries(driver.at(1_000))

    assert driver.report("thief", succeeded=[delivery.token]).fenced == [delivery.token]
    assert driver.engine.state.attempts[delivery.token]


def test_leases_that_were_lost_on_the_way_are_sent_again_with_the_same_token() -> None:
    driver = Driver.leading(task_spec())
    driver.pull()
    [delivery] = deliveries(driver.at(1_000))

    again = deliveries(driver.pull(received=0))

    assert [d.token for d in again] == [delivery.token]
    assert deliveries(driver.pull(received=delivery.token)) == []


def test_an_attempt_whose_lease_is_not_renewed_is_driven_again_with_a_higher_token() -> None:
    driver = Driver.leading(task_spec(), config=EngineConfig(lease_ms=2_000))
    driver.pull(free=1)
    [first] = deliveries(driver.at(1_000))
    driver.at(2_500, None)
    driver.report(renew=[first.token])
    driver.at(4_000)
    assert first.token in driver.engine.state.attempts, "the renewal keeps it"

    driver.at(5_200)
    driver.pull(received=first.token)
    again = [d for d in deliveries(driver.pull("w1")) if d.run_id == first.run_id]
    again += [d for d in deliveries(driver.at(5_300)) if d.run_id == first.run_id]

    assert first.token not in driver.engine.state.attempts
    assert [fact.reason for fact in driver.of(f.Failed)] == [f.FailureReason.LOST]


def test_at_most_once_is_never_driven_again_when_its_worker_is_lost() -> None:
    driver = Driver.leading(task_spec(guarantee=Guarantee.AT_MOST_ONCE))
    driver.pull()
    [delivery] = deliveries(driver.at(1_000))

    driver.do(m.WorkerGone(key=m.WorkerKey("shops", "pool", "w0")))

    [failed] = driver.of(f.Failed)
    assert failed.token == delivery.token
    assert failed.retry_ms == 0
    assert driver.engine.state.by_uid["uid-hello"].failed == 1


def test_a_new_process_in_a_workers_place_loses_what_the_old_one_held() -> None:
    driver = Driver.leading(task_spec())
    driver.pull()
    [delivery] = deliveries(driver.at(1_000))

    effects = driver.pull(instance="j")

    [again] = deliveries(effects)
    assert again.run_id == delivery.run_id
    assert again.token > delivery.token
    assert again.attempt == 2


def test_a_failed_attempt_waits_for_its_backoff_and_ends_as_a_dead_letter() -> None:
    retry = RetryPolicy(limit=2, backoff=Backoff(initial_ms=100, factor=3))
    driver = Driver.leading(task_spec(trigger=None, retry=retry))
    driver.submit("k")
    delays = []
    for attempt in (1, 2, 3):
        [delivery] = deliveries(driver.pull(received=driver.engine.state.next_token - 1))
        assert delivery.attempt == attempt
        driver.report(failed=[m.FailedAttempt(token=delivery.token, error_type="ValueError", message="no")])
        failed = driver.of(f.Failed)[-1]
        if failed.retry_ms:
            delays.append(failed.retry_ms - driver.now_ms)
            driver.at(failed.retry_ms - 1_700_000_000_000)

    assert delays == [100, 300]
    task = driver.engine.state.by_uid["uid-hello"]
    assert task.failed == 1
    assert task.history_failed[0].error_type == "ValueError"
    assert task.history_failed[0].attempts == 3


def test_returned_leases_go_to_another_worker_without_counting_as_an_attempt() -> None:
    driver = Driver.leading(task_spec())
    driver.pull("w0")
    [delivery] = deliveries(driver.at(1_000))

    driver.report("w0", returned=[delivery.token], leaving=True)
    [again] = deliveries(driver.pull("w1"))

    assert again.run_id == delivery.run_id
    assert again.attempt == 1


def test_a_dispatch_that_no_worker_takes_in_time_fails() -> None:
    driver = Driver.leading(task_spec(trigger=None, dispatch_timeout_ms=500, retry=RetryPolicy(limit=1)))
    driver.submit("k")

    driver.at(600)
    assert driver.engine.state.by_uid["uid-hello"].failed == 0
    driver.at(1_200)

    assert driver.engine.state.by_uid["uid-hello"].history_failed[0].error_type == "Undelivered"


def test_a_dispatch_waits_for_a_worker_as_long_as_its_timeout_says_and_no_lead_longer() -> None:
    driver = Driver.leading(task_spec(trigger=None, dispatch_timeout_ms=500, retry=RetryPolicy(limit=0)))
    driver.do(m.LeadSet(lead_ms=250))
    driver.submit("k")

    driver.at(499)
    assert driver.engine.state.by_uid["uid-hello"].failed == 0
    driver.at(500)
    assert driver.engine.state.by_uid["uid-hello"].failed == 1


def test_a_worker_that_waited_long_for_work_is_not_silent_the_moment_that_it_gets_some() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.pull()
    driver.at(15_000)
    driver.submit("one")

    driver.at(24_000)
    assert driver.of(f.Failed) == []

    driver.at(26_001)
    [failed] = driver.of(f.Failed)
    assert "nothing was heard of it for 11001 ms" in failed.message


def test_a_worker_whose_pull_broke_off_has_its_silence_from_then_on() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.submit("one")
    driver.pull()
    driver.pull(received=1, free=9)
    driver.at(13_000, m.PullEnded(request=driver._requests))

    driver.at(14_500)

    assert driver.of(f.Failed) == []


def test_a_silent_worker_is_lost_and_its_work_moves() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.submit("k")
    [first] = deliveries(driver.pull("w0"))

    driver.at(11_500)
    [again] = deliveries(driver.pull("w1"))

    assert again.run_id == first.run_id
    assert again.token > first.token


def test_a_new_leader_gives_open_attempts_one_full_lease_and_takes_their_reports() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.submit("k")
    [delivery] = deliveries(driver.pull())

    new = driver.successor(task_spec(trigger=None), now_ms=driver.now_ms + 60_000)
    new.at(60_000 + 14_000)
    assert delivery.token in new.engine.state.attempts
    reported = new.report(succeeded=[delivery.token])

    assert reported.fenced == []
    assert new.engine.state.by_uid["uid-hello"].succeeded == 1


def test_the_same_idempotency_key_is_the_same_run() -> None:
    driver = Driver.leading(task_spec(trigger=None))

    first, second = driver.submit("order-1"), driver.submit("order-1")

    assert isinstance(first, m.Submitted)
    assert isinstance(second, m.Submitted)
    assert (first.runs[0].created, second.runs[0].created) == (True, False)
    assert first.runs[0].run_id == second.runs[0].run_id
    assert len(driver.of(f.Submitted)) == 1


def test_a_run_that_a_worker_holds_is_cancelled_when_that_says_that_it_stopped() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    submitted = driver.submit("k")
    assert isinstance(submitted, m.Submitted)
    [delivery] = deliveries(driver.pull())

    driver.do(m.CancelRun(request=99, run_id=submitted.runs[0].run_id))

    task = driver.engine.state.by_uid["uid-hello"]
    told = driver.report(renew=[delivery.token])
    assert (told.fenced, told.cancel, task.cancelled) == ([], [delivery.token], 0)
    stopped = m.FailedAttempt(token=delivery.token, error_type="Cancelled", message="its process was killed")
    assert driver.report(failed=[stopped]).fenced == []
    assert task.cancelled == 1
    assert "its process was killed" in task.history_failed[0].message


def test_a_full_backlog_refuses_submissions_and_skips_instants() -> None:
    driver = Driver.leading(task_spec(), config=EngineConfig(max_backlog=2))
    for offset in (1_000, 2_000, 3_000):
        driver.at(offset)

    refused = driver.submit("k")

    assert isinstance(refused, m.CommandRefused)
    assert refused.reason is m.RefusalReason.BACKLOG_FULL
    assert [skip.reason for skip in driver.of(f.Skipped)] == [f.SkipReason.BACKLOG]


def test_a_pull_is_answered_empty_when_its_time_is_up() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.pull()

    driver.at(19_000)
    answered = only(driver.at(21_500), m.Pulled)

    assert answered.deliveries == []


def test_a_run_that_a_takeover_makes_and_one_that_it_replays_are_each_leased_once() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)

    new = driver.successor(task_spec(), now_ms=driver.now_ms + 1_000)
    got = deliveries(new.pull())

    assert sorted(d.scheduled_ms for d in got) == [driver.now_ms, driver.now_ms + 1_000]


def test_a_new_leader_counts_the_runs_that_end_under_it_only() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.submit("a")
    driver.submit("b")
    first, second = deliveries(driver.pull())
    driver.report(succeeded=[first.token])

    new = driver.successor(task_spec(trigger=None))
    new.report(succeeded=[second.token])

    for leader in (driver, new):
        assert leader.engine.stats.runs_ended[m.RunState.SUCCEEDED] == 1
        assert leader.engine.stats.of_pool("shops", "pool").ended == {m.RunState.SUCCEEDED: 1}


def test_at_most_once_is_not_retried_when_its_handler_failed_either() -> None:
    driver = Driver.leading(task_spec(trigger=None, guarantee=Guarantee.AT_MOST_ONCE))
    driver.submit("k")
    [delivery] = deliveries(driver.pull())

    driver.report(failed=[m.FailedAttempt(token=delivery.token, error_type="TimeoutError", timeout=True)])

    assert driver.engine.state.by_uid["uid-hello"].failed == 1


def test_a_worker_that_waits_is_told_of_a_cancelled_attempt_at_once() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    submitted = driver.submit("k")
    assert isinstance(submitted, m.Submitted)
    [delivery] = deliveries(driver.pull())
    driver.pull(received=delivery.token)

    effects = driver.do(m.CancelRun(request=99, run_id=submitted.runs[0].run_id))

    assert only(effects, m.Pulled).cancel == [delivery.token]


def test_an_edited_handler_takes_what_waits_along() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.submit("k")

    driver.do(m.TaskApplied(spec=task_spec(trigger=None, generation=2, handler="wave")))

    assert deliveries(driver.pull("old", handlers=("greet",))) == []
    assert len(deliveries(driver.pull("new", handlers=("wave",)))) == 1


def test_a_dispatch_timeout_that_was_removed_no_longer_counts() -> None:
    driver = Driver.leading(task_spec(trigger=None, dispatch_timeout_ms=500))
    driver.submit("k")

    driver.do(m.TaskApplied(spec=task_spec(trigger=None, generation=2)))
    driver.at(5_000)

    assert driver.of(f.Undelivered) == []


def test_the_key_of_an_open_run_is_not_forgotten_however_many_come_after_it() -> None:
    driver = Driver.leading(task_spec(trigger=None), config=EngineConfig(max_keys=2))
    driver.submit("open")
    [held] = deliveries(driver.pull(free=1))
    for number in range(5):
        driver.submit(f"other-{number}")

    again = driver.submit("open")

    assert isinstance(again, m.Submitted)
    assert not again.runs[0].created
    assert held.token in driver.engine.state.attempts


def test_a_pull_that_does_not_wait_is_answered_at_once() -> None:
    driver = Driver.leading(task_spec(trigger=None))

    effects = driver.do(m.Pull(request=7, worker=driver.seen("w0"), free=1, until_ms=driver.now_ms))
    assert effects == [m.Pulled(request=7, deliveries=[])]

    driver.submit("a")
    effects = driver.do(m.Pull(request=8, worker=driver.seen("w0"), free=1, until_ms=driver.now_ms))
    assert len(deliveries(effects)) == 1


def test_a_lost_delivery_of_a_task_that_nobody_knows_waits_until_the_task_is_mended() -> None:
    spec = task_spec(trigger=None, parameters=b'{"a":1}')
    before = Driver.leading(spec)
    before.submit("a")
    [lost] = deliveries(before.pull())
    later = Driver(now_ms=T0)
    later.engine.replay(before.facts)
    later.do(m.TaskRemoved(uid=spec.uid, forget=False))
    later.do(m.CatalogSynced())

    for second in range(0, 120, 20):
        later.now_ms = T0 + second * 1_000
        assert deliveries(later.pull()) == [], "it is never sent without its handler"
        later.at(second * 1_000 + 19_000)
    later.do(m.TaskApplied(spec=spec))

    [again] = deliveries(later.pull())
    assert (again.token, again.task.handler, again.parameters) == (lost.token, "greet", b'{"a":1}')
    assert later.report(succeeded=[again.token]).fenced == []


def test_a_lost_delivery_of_a_task_that_nobody_knows_fails_with_the_reason_when_its_worker_is_lost() -> None:
    spec = task_spec(trigger=None)
    before = Driver.leading(spec)
    before.submit("a")
    before.pull()
    later = Driver(now_ms=T0)
    later.engine.replay(before.facts)
    later.do(m.TaskRemoved(uid=spec.uid, forget=False))
    later.do(m.CatalogSynced())
    later.pull()

    later.do(m.WorkerGone(key=m.WorkerKey("shops", "pool", "w0")))

    [failed] = later.of(f.Failed)
    assert failed.retry_ms == 0
    assert "the ScheduledTask is invalid" in failed.message


def test_a_cancel_that_was_lost_on_its_way_is_told_with_each_renewal() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    submitted = driver.submit("k")
    assert isinstance(submitted, m.Submitted)
    [delivery] = deliveries(driver.pull())
    driver.pull(received=delivery.token)
    driver.cancel(submitted.runs[0].run_id)  # the pull's answer names it, and is lost
    for _ in range(2):
        assert driver.report(renew=[delivery.token]).cancel == [delivery.token]


def test_a_cancelled_run_whose_lease_its_worker_never_had_ends_when_the_worker_says_so() -> None:
    driver = Driver.leading(task_spec(trigger=None, overlap=Overlap(policy=OverlapPolicy.QUEUE, max_concurrent=1)))
    submitted = driver.submit("k")
    assert isinstance(submitted, m.Submitted)
    [delivery] = deliveries(driver.pull())  # its append takes long, and the worker gives up waiting for the answer
    driver.submit("next")
    driver.cancel(submitted.runs[0].run_id)
    told = only(driver.pull(received=0), m.Pulled)
    assert (told.deliveries, told.cancel) == ([], [delivery.token])
    assert len(driver.open_runs()) == 2, "the first answer may still come: the worker would begin"
    driver.report(returned=[delivery.token])
    [left] = driver.open_runs()
    [following] = deliveries(driver.pull(received=delivery.token))
    assert (left.key, following.run_id) == ("next", left.id)


def test_a_lease_and_a_cancel_that_were_lost_together_are_sent_together() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    first, second = driver.submit("1"), driver.submit("2")
    assert isinstance(first, m.Submitted)
    assert isinstance(second, m.Submitted)
    one, two = deliveries(driver.pull())
    driver.cancel(first.runs[0].run_id)
    again = only(driver.pull(received=0), m.Pulled)
    assert ([d.token for d in again.deliveries], again.cancel) == ([two.token], [one.token])


def test_a_pull_that_comes_after_a_later_one_decides_nothing() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    submitted = driver.submit("k")
    assert isinstance(submitted, m.Submitted)
    [delivery] = deliveries(driver.pull(sequence=2))
    assert driver.pull(sequence=3, received=delivery.token) == [], "it waits"
    driver.cancel(submitted.runs[0].run_id)
    driver.pull(sequence=4, received=delivery.token)
    late = only(driver.pull(sequence=1, received=0, handlers=(), free=1), m.Pulled)
    assert (late.deliveries, late.cancel) == ([], [])
    assert len(driver.open_runs()) == 1
    driver.submit("other")
    assert len(deliveries(driver.do(m.Tick()))) == 0
    assert [run.dispatches[0].token > 0 for run in driver.open_runs()] == [True, True], (
        "the later pull still waits for work"
    )


def test_pulls_of_a_process_in_anothers_place_are_counted_from_the_start() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.pull(sequence=7)
    driver.pull(sequence=1, instance="new")
    driver.submit("k")
    assert len(driver.of(f.Leased)) == 1


def test_a_successor_tells_the_worker_again_what_it_must_stop() -> None:
    spec = task_spec(trigger=None)
    driver = Driver.leading(spec)
    submitted = driver.submit("k")
    assert isinstance(submitted, m.Submitted)
    [delivery] = deliveries(driver.pull())
    driver.cancel(submitted.runs[0].run_id)
    new = driver.successor(spec)
    [told] = [e for e in new.pull(received=delivery.token) if isinstance(e, m.Pulled)]
    assert told.cancel == [delivery.token]
    new.report(failed=[m.FailedAttempt(token=delivery.token, error_type="Cancelled")])
    assert new.open_runs() == []


def test_a_run_that_waits_for_a_retry_shows_why_its_last_attempt_failed() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    [delivery] = deliveries(driver.pull())
    driver.report(failed=[m.FailedAttempt(token=delivery.token, error_type="OutOfStock", message="no shoes")])
    [view] = driver.engine.views(10).tasks
    [run] = view.runs
    assert (run.state, run.error_type, run.message) == (m.RunState.PENDING, "OutOfStock", "no shoes")
    assert run.ready_ms > driver.now_ms
