"""Who goes first where runs of several tasks, with limits of their own, are counted together; and who must go."""

from __future__ import annotations

from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.spec import Overlap, OverlapPolicy, RetryPolicy, TaskSpec
from tickwheel_operator.ledger import facts as f


def _counted(name: str, policy: OverlapPolicy, limit: int, **changes: object) -> TaskSpec:
    overlap = Overlap(policy=policy, max_concurrent=limit, key="/shop")
    return task_spec(name, trigger=None, parameters=b'{"shop":"north"}', overlap=overlap, **changes)


def _one_that_waits(*others: TaskSpec) -> Driver:
    """A run of `one` is open, and another of it waits, since only one may be."""
    driver = Driver.leading(_counted("one", OverlapPolicy.QUEUE, 1), *others)
    driver.submit("open", "one")
    driver.submit("waits", "one")
    return driver


def test_a_task_with_a_higher_limit_does_not_overtake_what_waits_in_its_group() -> None:
    driver = _one_that_waits(_counted("other", OverlapPolicy.QUEUE, 3))
    driver.submit("later", "other")
    [first] = deliveries(driver.pull())
    keys = {run.id: run.key for name in ("one", "other") for run in driver.open_runs(name)}
    driver.report(succeeded=[first.token])
    following = deliveries(driver.pull(received=first.token))
    assert [keys[delivery.run_id] for delivery in (first, *following)] == ["open", "waits", "later"]


def test_forbid_refuses_a_run_that_would_have_to_wait_though_its_own_limit_has_room() -> None:
    driver = _one_that_waits(_counted("other", OverlapPolicy.FORBID, 3))
    refused = driver.submit("later", "other")
    assert isinstance(refused, m.CommandRefused)
    assert refused.reason is m.RefusalReason.OVERLAP


def test_a_queue_counts_one_that_must_wait_though_its_own_limit_has_room() -> None:
    overlap = Overlap(policy=OverlapPolicy.QUEUE, max_concurrent=3, queue_limit=1, key="/shop")
    driver = _one_that_waits(task_spec("other", trigger=None, parameters=b'{"shop":"north"}', overlap=overlap))
    refused = driver.submit("later", "other")
    assert isinstance(refused, m.CommandRefused)
    assert refused.reason is m.RefusalReason.OVERLAP


def test_replace_stops_no_second_run_while_the_first_one_is_stopping() -> None:
    overlap = Overlap(policy=OverlapPolicy.REPLACE, max_concurrent=2)
    driver = Driver.leading(task_spec(trigger=None, overlap=overlap))
    driver.submit("1")
    driver.submit("2")
    first, second = deliveries(driver.pull())
    driver.submit("3")
    driver.submit("4")
    asked = [fact.run for fact in driver.of(f.CancelAsked)]
    assert asked == [1], "one place is enough for the newest"
    assert driver.report(renew=[first.token, second.token]).cancel == [first.token]
    assert [fact.run for fact in driver.of(f.Cancelled)] == [3], "the newest stands for it"


def test_a_run_that_an_edit_makes_wait_for_others_keeps_no_timer() -> None:
    """Its dispatch timeout counts from when it may start."""
    limit = [Overlap(policy=OverlapPolicy.QUEUE, max_concurrent=number) for number in (2, 1)]
    driver = Driver.leading(task_spec(trigger=None, overlap=limit[0], dispatch_timeout_ms=3_000))
    driver.submit("1")
    driver.submit("2")
    driver.do(m.TaskApplied(spec=task_spec(trigger=None, overlap=limit[1], dispatch_timeout_ms=3_000, generation=2)))
    assert [(run.held, run.dispatches[0].timer is None) for run in driver.open_runs()] == [(False, False), (True, True)]


def test_groups_that_all_have_left_are_forgotten() -> None:
    overlap = Overlap(policy=OverlapPolicy.QUEUE, max_concurrent=1, key="/shop")
    driver = Driver.leading(task_spec(trigger=None, overlap=overlap))
    for shop in range(3):
        driver.submit(f"{shop}", parameters=b'{"shop":%d}' % shop)
    assert len(driver.engine.overlaps._groups) == 3
    driver.report(succeeded=[d.token for d in deliveries(driver.pull())])
    assert driver.engine.overlaps._groups == {}


def test_a_pointer_with_escapes_finds_its_value() -> None:
    for pointer, name in (("/a~01", "a~1"), ("/a~1b", "a/b"), ("/a~0b", "a~b")):
        overlap = Overlap(policy=OverlapPolicy.FORBID, max_concurrent=1, key=pointer)
        driver = Driver.leading(task_spec(trigger=None, overlap=overlap))
        answers = [
            driver.submit(key, parameters=b'{"%b":%b}' % (name.encode(), value))
            for key, value in (("1", b"1"), ("2", b"2"), ("3", b"1"))
        ]
        assert [type(answer) for answer in answers] == [m.Submitted, m.Submitted, m.CommandRefused], pointer


def test_a_key_is_counted_in_its_own_namespace() -> None:
    overlap = Overlap(policy=OverlapPolicy.FORBID, max_concurrent=1, key="/shop")
    specs = [
        task_spec("one", trigger=None, overlap=overlap),
        task_spec("two", trigger=None, overlap=overlap, namespace="others"),
    ]
    driver = Driver.leading(*specs)
    for spec in specs:
        runs = [m.Submission(key="k", scheduled_ms=T0, parameters=b'{"shop":1}')]
        [answer] = driver.do(m.Submit(request=spec.name, namespace=spec.namespace, name=spec.name, runs=runs))
        assert isinstance(answer, m.Submitted)


def test_a_delayed_run_replaces_the_open_one_when_its_delay_is_over() -> None:
    driver = Driver.leading(task_spec(trigger=None, overlap=Overlap(policy=OverlapPolicy.REPLACE, max_concurrent=1)))
    driver.submit("open")
    assert len(deliveries(driver.pull())) == 1
    driver.submit("delayed", delay_ms=500)
    assert driver.of(f.CancelAsked) == []
    driver.at(500)
    assert [fact.run for fact in driver.of(f.CancelAsked)] == [1]


def test_a_delay_that_was_over_before_the_checkpoint_is_not_judged_again_by_who_restores_it() -> None:
    """No fact comes after the checkpoint, so that it alone says how far the leader before had come."""
    two, one = (
        task_spec(trigger=None, generation=limit, overlap=Overlap(policy=OverlapPolicy.FORBID, max_concurrent=limit))
        for limit in (2, 1)
    )
    driver = Driver.leading(two)
    driver.submit("delayed", delay_ms=500)
    driver.at(500)
    driver.submit("second")
    later = Driver(now_ms=T0 + 600)
    later.engine.restore(list(driver.engine.snapshot()))
    later.do(m.TaskApplied(spec=one))
    later.do(m.CatalogSynced())
    assert [(run.key, run.held) for run in later.open_runs()] == [("delayed", False), ("second", True)]
    assert later.of(f.Cancelled) == []


def test_a_successor_admits_a_retry_before_a_run_that_was_made_earlier_and_delayed() -> None:
    """The retry had the place when the delay was over."""
    overlap = Overlap(policy=OverlapPolicy.QUEUE, max_concurrent=1)
    spec = task_spec(trigger=None, overlap=overlap, retry=RetryPolicy(limit=3))
    driver = Driver.leading(spec)
    driver.submit("delayed", delay_ms=1_000)
    driver.submit("retried")
    [delivery] = deliveries(driver.pull())
    driver.at(2_000)
    driver.report(failed=[m.FailedAttempt(token=delivery.token, error_type="E")])
    assert [(run.key, run.held) for run in driver.open_runs()] == [("delayed", True), ("retried", False)]
    successor = driver.successor(spec)
    assert [(run.key, run.held) for run in successor.open_runs()] == [("delayed", True), ("retried", False)]
