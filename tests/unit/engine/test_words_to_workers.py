"""What a worker is told: its own leases once, its own cancels only, and the end of its attempts by one clock."""

from __future__ import annotations

from tests.unit.engine.driver import T0, Driver, deliveries, only, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.sources import Completion, Outcome
from tickwheel_operator.engine.spec import EngineConfig, Overlap, OverlapPolicy, RetryPolicy
from tickwheel_operator.ledger import facts as f

_BEYOND_THE_TIMEOUT_MS = 120_000


def test_what_was_gathered_for_a_pull_that_broke_off_is_not_sent_to_a_later_one_that_knows_it() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.engine.gather()
    driver.pull()
    driver.submit("k")
    driver.do(m.PullEnded(request=1))
    [again] = deliveries(driver.pull())
    assert driver.report(succeeded=[again.token]).fenced == []
    assert driver.pull(received=again.token) == []
    driver.submit("next")
    [following] = deliveries(driver.engine.answers())
    assert following.token > again.token


def test_a_process_is_not_told_to_stop_what_the_one_before_it_held() -> None:
    """The end of one attempt of the old process replaces another of it, while the new one has the place already."""
    replace = Overlap(policy=OverlapPolicy.REPLACE, max_concurrent=1)
    specs = (
        task_spec(trigger=None, retry=RetryPolicy(limit=0)),
        task_spec("next", source=Completion("hello", Outcome.FAILED), overlap=replace),
    )
    driver = Driver.leading(*specs)
    driver.submit("1")
    driver.submit("2", "next")
    assert len(deliveries(driver.pull())) == 2
    new = driver.successor(*specs)
    pulled = only(new.pull(instance="later"), m.Pulled)
    assert [fact.run for fact in new.of(f.CancelAsked)] == [2], "the follower of the lost run replaced it"
    assert pulled.cancel == []
    assert [d.task.name for d in pulled.deliveries] == ["next"]


def test_an_attempt_has_its_whole_timeout_under_a_new_leader() -> None:
    """No leader knows when it began under another, whose clock was not its own."""
    spec = task_spec(trigger=None, timeout_ms=60_000, grace_ms=7_000)
    driver = Driver.leading(spec, config=EngineConfig(lease_ms=15_000))
    driver.submit("k")
    [delivery] = deliveries(driver.pull())
    new = driver.successor(spec)
    limit = 60_000 + 7_000 + _BEYOND_THE_TIMEOUT_MS
    for passed in range(0, limit + 1, 5_000):
        new.now_ms = T0 + passed
        assert new.report(renew=[delivery.token]).fenced == [], f"{passed} ms after the takeover"
    new.now_ms = T0 + limit + 1
    assert new.report(renew=[delivery.token]).fenced == [delivery.token]


def test_what_follows_from_an_end_stands_right_behind_it_though_one_report_ends_several_runs() -> None:
    """So that a leader that dies between two segments leaves no end without what follows from it."""
    driver = Driver.leading(task_spec(trigger=None), task_spec("next", source=Completion("hello", Outcome.SUCCEEDED)))
    for key in range(3):
        driver.submit(f"{key}")
    tokens = [d.token for d in deliveries(driver.pull())]
    driver.report(succeeded=tokens)
    told = [fact for fact in driver.facts if isinstance(fact, f.Succeeded | f.Requested)]
    assert [type(fact) for fact in told] == [f.Succeeded, f.Requested] * 3
    assert [fact.tokens for fact in driver.of(f.Succeeded)] == [[token] for token in tokens]


def test_ends_that_nobody_waits_for_are_one_fact() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    for key in range(3):
        driver.submit(f"{key}")
    tokens = [d.token for d in deliveries(driver.pull())]
    driver.report(succeeded=tokens)
    assert [fact.tokens for fact in driver.of(f.Succeeded)] == [tokens]


def test_the_progress_of_an_attempt_is_said_by_its_own_worker_only() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.submit("k")
    [delivery] = deliveries(driver.pull())
    driver.report("w0", progress=[(delivery.token, 0.25, "a quarter")])
    driver.report("other", progress=[(delivery.token, 1.0, "done")])
    [task] = driver.engine.views(10).tasks
    assert [(run.fraction, run.note) for run in task.runs] == [(0.25, "a quarter")]


def test_a_report_that_ends_an_overdue_attempt_is_answered_with_what_must_stop_since() -> None:
    """The end of one attempt, which is renewed long after its time-out, replaces another that was renewed just before
    it."""
    replace = Overlap(policy=OverlapPolicy.REPLACE, max_concurrent=1)
    driver = Driver.leading(
        task_spec(trigger=None, timeout_ms=1_000, grace_ms=0, retry=RetryPolicy(limit=0)),
        task_spec("next", source=Completion("hello", Outcome.FAILED), overlap=replace),
    )
    driver.submit("1", "next")
    driver.submit("2")
    first, second = (delivery.token for delivery in deliveries(driver.pull()))
    for passed in range(0, _BEYOND_THE_TIMEOUT_MS, 5_000):
        driver.now_ms = T0 + passed
        assert driver.report(renew=[first, second]).cancel == []
    driver.now_ms = T0 + 1_000 + _BEYOND_THE_TIMEOUT_MS + 1
    last = driver.report(renew=[first, second])
    assert (last.fenced, last.cancel) == ([second], [first])


def test_a_worker_that_waits_is_told_to_stop_what_it_does_for_a_task_that_is_deleted() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.submit("k")
    [delivery] = deliveries(driver.pull())
    driver.pull(received=delivery.token)
    told = only(driver.do(m.TaskRemoved(uid="uid-hello", forget=True)), m.Pulled)
    assert (told.deliveries, told.cancel) == ([], [delivery.token])


def test_ends_are_one_fact_again_when_the_last_follower_is_gone() -> None:
    driver = Driver.leading(task_spec(trigger=None), task_spec("next", source=Completion("hello", Outcome.SUCCEEDED)))
    driver.submit("0")
    [first] = deliveries(driver.pull())
    driver.report(succeeded=[first.token])
    driver.do(m.TaskRemoved(uid="uid-next", forget=True))
    driver.submit("1")
    driver.submit("2")
    tokens = [d.token for d in deliveries(driver.pull(received=first.token))]
    driver.report(succeeded=tokens)
    assert [fact.tokens for fact in driver.of(f.Succeeded)] == [[first.token], tokens]


def test_a_worker_is_not_told_to_stop_what_it_was_told_that_it_has_lost() -> None:
    driver = Driver.leading(task_spec(trigger=None, timeout_ms=1_000))
    driver.submit("k")
    [delivery] = deliveries(driver.pull())
    for passed in range(0, 150_000, 5_000):
        driver.now_ms = T0 + passed
        answer = driver.report(renew=[delivery.token])
        if passed == 100_000:
            driver.cancel(delivery.run_id)
        if answer.fenced:
            break
    assert (answer.fenced, answer.cancel) == ([delivery.token], [])
