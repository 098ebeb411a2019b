"""`spec.concurrency`: how many runs of a group may be open, and what becomes of one more."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.messages import RunState
from tickwheel_operator.engine.sources import Completion, Outcome
from tickwheel_operator.engine.spec import Misfire, MisfirePolicy, Overlap, OverlapPolicy, TaskSpec
from tickwheel_operator.engine.triggers import FixedRateTrigger
from tickwheel_operator.ledger import facts as f


def _task(policy: OverlapPolicy, name: str = "hello", limit: int = 1, **changes: Any) -> TaskSpec:
    overlap = Overlap(
        policy=policy,
        max_concurrent=limit,
        queue_limit=changes.pop("queue_limit", 100),
        key=changes.pop("key", None),
    )
    return task_spec(name, overlap=overlap, **changes)


def _skips(driver: Driver) -> list[tuple[int, f.SkipReason]]:
    return [(skip.count, skip.reason) for skip in driver.of(f.Skipped)]


def test_forbid_skips_an_instant_while_a_run_is_open_and_fires_when_it_has_ended() -> None:
    driver = Driver.leading(_task(OverlapPolicy.FORBID))
    driver.at(1_000)
    [first] = deliveries(driver.pull())
    driver.at(2_000)
    assert _skips(driver) == [(1, f.SkipReason.OVERLAP)]
    driver.report(succeeded=[first.token])
    driver.at(3_000)
    assert [d.scheduled_ms - T0 for d in deliveries(driver.pull(received=first.token))] == [3_000]


def test_forbid_refuses_a_run_by_hand_but_knows_one_that_it_has() -> None:
    driver = Driver.leading(_task(OverlapPolicy.FORBID, trigger=None))
    assert isinstance(driver.submit("a"), m.Submitted)
    refused = driver.submit("b")
    assert isinstance(refused, m.CommandRefused)
    assert refused.reason is m.RefusalReason.OVERLAP
    again = driver.submit("a")
    assert isinstance(again, m.Submitted)
    assert not again.runs[0].created


def test_a_refusal_names_what_is_counted_and_the_run_in_the_way() -> None:
    first = _task(OverlapPolicy.FORBID, trigger=None, key="/shop")
    second = _task(OverlapPolicy.FORBID, "other", trigger=None, key="/shop")
    driver = Driver.leading(first, second)
    driver.submit("a", parameters=b'{"shop":"north"}', object_name="by-hand")
    refused = driver.submit("b", "other", parameters=b'{"shop":"north"}')
    assert isinstance(refused, m.CommandRefused)
    assert 'spec.concurrency.key /shop, which is "north"' in refused.detail
    assert "TaskRun by-hand" in refused.detail


def test_a_replaced_run_names_the_taskrun_that_took_its_place() -> None:
    driver = Driver.leading(_task(OverlapPolicy.REPLACE))
    driver.at(1_000)
    driver.at(2_000)
    [cancelled] = driver.of(f.Cancelled)
    assert cancelled.message == f"replaced by the run hello-{T0 + 2_000}"


def test_queue_runs_one_after_the_other_and_skips_beyond_its_limit() -> None:
    driver = Driver.leading(_task(OverlapPolicy.QUEUE, queue_limit=2))
    for second in (1, 2, 3, 4):
        driver.at(second * 1_000)
    assert _skips(driver) == [(1, f.SkipReason.QUEUE_FULL)]
    done, token = [], 0
    while got := deliveries(driver.pull(received=token)):
        assert len(got) == 1, "one at a time"
        token = got[0].token
        done.append(got[0].scheduled_ms - T0)
        driver.report(succeeded=[token])
    assert done == [1_000, 2_000, 3_000]


def test_allow_with_a_limit_lets_the_others_wait() -> None:
    driver = Driver.leading(_task(OverlapPolicy.ALLOW, limit=2))
    for second in (1, 2, 3):
        driver.at(second * 1_000)
    got = deliveries(driver.pull())
    assert [d.scheduled_ms - T0 for d in got] == [1_000, 2_000]
    assert _skips(driver) == []
    driver.report(succeeded=[got[0].token])
    assert [d.scheduled_ms - T0 for d in deliveries(driver.pull(received=got[1].token))] == [3_000]


def test_replace_waits_until_the_old_run_has_said_that_it_stopped() -> None:
    driver = Driver.leading(_task(OverlapPolicy.REPLACE))
    driver.at(1_000)
    [old] = deliveries(driver.pull())
    driver.pull(received=old.token)
    [told] = [e for e in driver.at(2_000) if isinstance(e, m.Pulled)]
    assert told.cancel == [old.token]
    assert deliveries(driver.pull(received=old.token)) == []
    driver.report(failed=[m.FailedAttempt(token=old.token, error_type="Cancelled")])
    [new] = deliveries(driver.pull(received=old.token))
    assert new.scheduled_ms == T0 + 2_000
    ended = driver.engine.state.by_uid["uid-hello"].history_failed[0]
    assert (ended.state, "replaced by" in ended.message) == (m.RunState.CANCELLED, True)


def test_replace_starts_the_newest_of_those_that_waited() -> None:
    driver = Driver.leading(_task(OverlapPolicy.REPLACE))
    driver.at(1_000)
    [old] = deliveries(driver.pull())
    for second in (2, 3, 4):
        driver.at(second * 1_000)
    driver.report(failed=[m.FailedAttempt(token=old.token, error_type="Cancelled")])
    assert [d.scheduled_ms - T0 for d in deliveries(driver.pull(received=old.token))] == [4_000]
    assert [run.scheduled_ms - T0 for run in driver.open_runs()] == [4_000]


def test_a_replaced_run_whose_worker_is_lost_makes_room_too() -> None:
    driver = Driver.leading(_task(OverlapPolicy.REPLACE))
    driver.at(1_000)
    [old] = deliveries(driver.pull())
    driver.at(2_000)
    driver.do(m.WorkerGone(key=m.WorkerKey("shops", "pool", "w0")))
    assert [d.scheduled_ms - T0 for d in deliveries(driver.pull("w1"))] == [2_000]
    assert driver.engine.state.by_uid["uid-hello"].history_failed[0].run_id == old.run_id


def test_a_key_counts_runs_of_all_tasks_of_the_namespace_by_their_parameters() -> None:
    specs = [_task(OverlapPolicy.QUEUE, name, key="/shop", trigger=None) for name in ("one", "two")]
    driver = Driver.leading(*specs)
    driver.submit("a", "one", parameters=b'{"shop":"north"}')
    driver.submit("b", "two", parameters=b'{"shop":"north","x":1}')
    driver.submit("c", "two", parameters=b'{"shop":"south"}')
    driver.submit("d", "two", parameters=b"{}")
    driver.submit("e", "one", parameters=b"{}")
    got = deliveries(driver.pull())
    names = [(d.task.name, bytes(d.parameters)) for d in got]
    assert names == [
        ("one", b'{"shop":"north"}'), ("two", b'{"shop":"south"}'), ("two", b"{}"), ("one", b"{}"),
    ], "runs without the value count by their task"  # fmt: skip
    driver.report(succeeded=[got[0].token])
    [other] = deliveries(driver.pull(received=got[-1].token))
    assert (other.task.name, other.run_id.startswith("uid-two")) == ("two", True)


@pytest.mark.parametrize("policy", list(OverlapPolicy))
def test_a_successor_admits_as_many_as_the_leader_before(policy: OverlapPolicy) -> None:
    spec = _task(policy, limit=2)
    driver = Driver.leading(spec)
    driver.at(1_000)
    [first] = deliveries(driver.pull(free=1))
    for second in (2, 3, 4):
        driver.at(second * 1_000)

    new = driver.successor(spec)

    got = deliveries(new.pull("w1"))
    assert len(got) == 1, "one of two is open with the other worker"
    assert not deliveries(new.pull("w2"))
    new.report(succeeded=[first.token])


def test_an_edit_of_the_limit_admits_at_once() -> None:
    driver = Driver.leading(_task(OverlapPolicy.QUEUE))
    for second in (1, 2, 3):
        driver.at(second * 1_000)
    assert len(deliveries(driver.pull())) == 1
    driver.at(3_100, m.TaskApplied(spec=_task(OverlapPolicy.QUEUE, limit=3, generation=2)))
    assert len(deliveries(driver.pull(received=1))) == 2


def test_a_retry_keeps_its_place_among_the_open() -> None:
    driver = Driver.leading(_task(OverlapPolicy.QUEUE))
    driver.at(1_000)
    driver.at(2_000)
    [first] = deliveries(driver.pull())
    driver.report(failed=[m.FailedAttempt(token=first.token, error_type="ValueError")])
    assert deliveries(driver.pull(received=first.token)) == [], "its backoff is not over, and it is still open"
    [again] = deliveries(driver.at(4_000))
    assert again.run_id == first.run_id


def test_a_delayed_run_counts_only_from_the_end_of_its_delay() -> None:
    driver = Driver.leading(_task(OverlapPolicy.FORBID, trigger=None))
    driver.submit("later", delay_ms=5_000)
    assert isinstance(driver.submit("now"), m.Submitted)
    driver.at(6_000)
    ended = driver.engine.state.by_uid["uid-hello"].history_failed[0]
    assert ended.state is m.RunState.CANCELLED
    assert "Forbid" in ended.message


def test_replace_settles_several_instants_at_once_and_starts_the_last() -> None:
    driver = Driver.leading(_task(OverlapPolicy.REPLACE, misfire=Misfire(policy=MisfirePolicy.FIRE_ALL)))
    driver.at(5_000)
    assert [run.scheduled_ms - T0 for run in driver.open_runs()] == [5_000]
    assert [d.scheduled_ms - T0 for d in deliveries(driver.pull())] == [5_000]


def test_a_deleted_task_ends_what_it_held_too() -> None:
    driver = Driver.leading(_task(OverlapPolicy.QUEUE))
    for second in (1, 2, 3):
        driver.at(second * 1_000)
    driver.pull()
    driver.do(m.TaskRemoved(uid="uid-hello"))
    assert driver.engine.state.runs == {}


def test_a_takeover_that_replaces_a_run_of_another_task_forgets_that_run() -> None:
    first = _task(OverlapPolicy.REPLACE, "first", key="/shop", parameters=b'{"shop":1}', created_ms=T0)
    second = _task(OverlapPolicy.REPLACE, "second", key="/shop", parameters=b'{"shop":1}', trigger=None)
    driver = Driver.leading(first, second)
    driver.submit("k", "second")
    new = driver.successor(first, second, now_ms=T0 + 1_500)  # adopts `first`, and fires it, before `second`
    assert new.open_runs("second") == []
    [run] = deliveries(new.pull("w1"))
    assert run.task.name == "first"
    new.report(worker="w1", succeeded=[run.token])
    new.at(2_000)
    assert len(deliveries(new.pull("w1", received=run.token))) == 1


# --- several at once ---


def _submit_all(driver: Driver, *runs: tuple[str, bytes]) -> m.Effect:
    wanted = [m.Submission(key=key, scheduled_ms=driver.now_ms, parameters=parameters) for key, parameters in runs]
    return driver.do(m.Submit(request=0, namespace="shops", name="hello", runs=wanted))[0]


def test_forbid_refuses_more_runs_in_one_request_than_it_lets_be_open() -> None:
    driver = Driver.leading(_task(OverlapPolicy.FORBID, limit=2, trigger=None))
    refused = _submit_all(driver, ("a", b""), ("b", b""), ("c", b""))
    assert isinstance(refused, m.CommandRefused)
    assert refused.reason is m.RefusalReason.OVERLAP
    assert "with 2 of these 3 new runs" in refused.detail
    assert driver.open_runs() == [], "all or none"

    assert isinstance(_submit_all(driver, ("a", b""), ("b", b""), ("a", b"")), m.Submitted), "one key, one run"
    assert isinstance(_submit_all(driver, ("b", b""), ("a", b"")), m.Submitted), "known ones are no new ones"
    assert [run.held for run in driver.open_runs()] == [False, False]


def test_one_request_may_fill_the_queue_and_not_overfill_it() -> None:
    driver = Driver.leading(_task(OverlapPolicy.QUEUE, queue_limit=2, trigger=None))
    assert isinstance(_submit_all(driver, *[(str(n), b"") for n in range(4)]), m.CommandRefused)
    assert isinstance(_submit_all(driver, *[(str(n), b"") for n in range(3)]), m.Submitted)
    assert [run.held for run in driver.open_runs()] == [False, True, True]
    assert isinstance(_submit_all(driver, ("more", b"")), m.CommandRefused)


def test_runs_of_one_request_count_by_their_keys() -> None:
    driver = Driver.leading(_task(OverlapPolicy.FORBID, key="/shop", trigger=None))
    north, south = b'{"shop":"north"}', b'{"shop":"south"}'
    assert isinstance(_submit_all(driver, ("a", north), ("b", south), ("c", north)), m.CommandRefused)
    assert isinstance(_submit_all(driver, ("a", north), ("b", south)), m.Submitted)


# --- moments that were bad ---


def test_a_delay_that_ends_during_a_failover_is_judged_as_by_a_leader_that_stays() -> None:
    spec = _task(OverlapPolicy.FORBID, trigger=None)
    driver = Driver.leading(spec)
    driver.submit("later", delay_ms=5_000)
    driver.submit("now")
    driver.pull()
    new = driver.successor(spec, now_ms=T0 + 6_000)
    assert [run.key for run in new.open_runs()] == ["now"]
    [ended] = new.engine.state.by_uid["uid-hello"].history_failed
    assert (ended.state, "its delay was over" in ended.message) == (RunState.CANCELLED, True)
    newest = new.successor(spec, now_ms=T0 + 7_000)
    assert [run.key for run in newest.open_runs()] == ["now"]


def test_the_end_of_a_delayed_run_at_a_takeover_is_heard_by_who_follows() -> None:
    spec = _task(OverlapPolicy.FORBID, trigger=None)
    follower = task_spec("after", source=Completion("hello", Outcome.ANY))
    driver = Driver.leading(follower, spec)
    driver.submit("later", delay_ms=5_000)
    driver.submit("now")
    driver.pull()
    new = driver.successor(follower, spec, now_ms=T0 + 6_000)
    assert len(new.open_runs("after")) == 1


def test_a_delay_that_the_leader_before_saw_end_is_over_for_its_successor() -> None:
    spec = _task(OverlapPolicy.QUEUE, trigger=None)
    driver = Driver.leading(spec, task_spec("clock"))
    driver.submit("a")
    driver.submit("b", delay_ms=2_500)
    driver.at(3_000)
    driver.submit("c")
    new = driver.successor(spec, task_spec("clock"))
    for leader in (driver, new):
        group = leader.open_runs()[0].group
        assert group is not None
        assert ([run.key for run in group.admitted.values()], [run.key for run in group.held.values()]) == (
            ["a"], ["b", "c"],
        )  # fmt: skip


def test_a_run_that_an_edit_makes_wait_is_not_leased_ahead_of_its_instant() -> None:
    spec = task_spec()
    driver = Driver.leading(spec)
    driver.do(m.LeadSet(lead_ms=250))
    driver.at(1_000)
    assert len(deliveries(driver.pull("w0"))) == 1
    driver.at(1_760)  # the run of 2,000 is made, and nobody is there that knows the time
    assert len(driver.open_runs()) == 2
    driver.at(1_800, m.TaskApplied(spec=_task(OverlapPolicy.FORBID, generation=2)))
    assert deliveries(driver.pull("w1", error_us=100)) == []
    assert [(run.held, bool(run.dispatches[0].token)) for run in driver.open_runs()] == [(False, True), (True, False)]
    worker = driver.engine.router.find(m.WorkerKey("shops", "pool", "w1"))
    assert worker is not None
    assert worker.credit == 10, "nor was it dealt in vain"


def test_a_run_that_is_made_ahead_and_must_wait_since_an_edit_of_the_same_moment_is_not_leased() -> None:
    driver = Driver.leading(task_spec())
    driver.do(m.LeadSet(lead_ms=250))
    driver.at(1_000)
    assert len(deliveries(driver.pull("w0"))) == 1
    driver.pull("w1", error_us=100)
    effects = driver.at(1_760, m.TaskApplied(spec=_task(OverlapPolicy.FORBID, generation=2)))
    assert deliveries(effects) == []
    assert [(run.held, bool(run.dispatches[0].token)) for run in driver.open_runs()] == [(False, True), (True, False)]
    driver.report("w0", succeeded=[1])
    driver.at(2_000)
    assert [d.scheduled_ms for d in deliveries(driver.pull("w1", error_us=100))] == [T0 + 2_000]


# --- tasks that nobody can read ---


def _shop(name: str, policy: OverlapPolicy = OverlapPolicy.FORBID, shop: int = 1, **changes: Any) -> TaskSpec:
    return _task(policy, name, key="/shop", parameters=b'{"shop":%d}' % shop, **changes)


def _takes_over(driver: Driver, invalid: str, *specs: TaskSpec) -> Driver:
    """A new leader, since before which a task is invalid."""
    new = Driver(now_ms=driver.now_ms + 100)
    new.engine.replay(driver.facts)
    new.facts = list(driver.facts)
    new.do(m.TaskRemoved(uid=f"uid-{invalid}", forget=False))
    for spec in specs:
        new.do(m.TaskApplied(spec=spec))
    new.do(m.CatalogSynced())
    return new


def _led_with_an_open_run_of_one(**changes: Any) -> tuple[Driver, TaskSpec, m.Delivery]:
    one = _shop("one", trigger=None, **changes)
    driver = Driver.leading(one)
    driver.submit("x", "one")
    [open_run] = deliveries(driver.pull())
    return driver, one, open_run


@pytest.mark.parametrize("policy", list(OverlapPolicy))
def test_an_attempt_of_a_task_that_is_unreadable_counts_for_every_key_until_it_has_ended(policy: OverlapPolicy) -> None:
    driver, _, open_run = _led_with_an_open_run_of_one()
    two, free = _shop("two", policy, shop=2), task_spec("free")
    new = _takes_over(driver, "one", two, free)
    new.at(1_000)
    assert [d.task.name for d in deliveries(new.pull("w1"))] == ["free"], "who has no key waits for nobody"
    [held] = new.open_runs("two")
    assert held.held
    new.at(2_000)
    [view] = [v for v in new.engine.views(10).tasks if v.name == "two"]
    assert view.runs[0].waits_for == (
        "1 open run may have the same key, of invalid ScheduledTasks (mend or delete them): one"
    )

    new.report(succeeded=[open_run.token])
    got = [d for d in deliveries(new.pull("w2", received=99)) if d.task.name == "two"]
    wanted = {OverlapPolicy.REPLACE: 2_000}.get(policy, 1_000)
    assert [d.scheduled_ms - T0 for d in got] == [wanted]
    assert [skip.reason for skip in new.of(f.Skipped)] == [f.SkipReason.OVERLAP] * (policy is OverlapPolicy.FORBID)


def test_an_attempt_of_a_task_that_is_unreadable_counts_in_its_own_namespace_only() -> None:
    driver, _, _ = _led_with_an_open_run_of_one()
    elsewhere = _shop("two", OverlapPolicy.QUEUE, namespace="bank")
    new = _takes_over(driver, "one", elsewhere)
    new.at(1_000)
    assert [run.held for run in new.open_runs("two")] == [False]


def test_a_task_that_is_mended_counts_for_its_own_key_again() -> None:
    driver, one, _ = _led_with_an_open_run_of_one()
    new = _takes_over(driver, "one", _shop("two", shop=1), _shop("three", shop=3))
    new.at(1_000)
    assert deliveries(new.pull("w1")) == []

    again = new.do(m.TaskApplied(spec=one))

    assert [d.task.name for d in deliveries(again)] == ["three"]
    assert [run.held for run in new.open_runs("two")] == [True]


def test_a_mended_task_meets_its_own_open_run_before_what_is_overdue_fires() -> None:
    spec = _task(OverlapPolicy.FORBID, trigger=FixedRateTrigger(1_000, T0))
    driver = Driver.leading(spec)
    driver.at(1_000)
    assert len(deliveries(driver.pull())) == 1
    new = _takes_over(driver, "hello")
    new.at(2_500, m.TaskApplied(spec=spec))
    new.at(3_000)
    assert [run.scheduled_ms - T0 for run in new.open_runs()] == [1_000]
    assert set(_skips(new)) == {(1, f.SkipReason.OVERLAP)}


def test_an_attempt_that_is_given_back_while_its_task_is_unreadable_keeps_nobody_waiting() -> None:
    driver, one, open_run = _led_with_an_open_run_of_one()
    new = _takes_over(driver, "one", _shop("two"))
    new.at(1_000)
    new.report(returned=[open_run.token])
    [second] = deliveries(new.pull("w1"))
    assert second.task.name == "two"

    assert deliveries(new.do(m.TaskApplied(spec=one))) == [], "now it is the other that waits"
    assert deliveries(new.pull("w2")) == []
    new.report("w1", succeeded=[second.token])
    assert [d.task.name for d in deliveries(new.pull("w2"))] == ["one"]


def test_a_retry_of_a_task_that_was_unreadable_waits_for_who_took_its_place() -> None:
    driver, one, open_run = _led_with_an_open_run_of_one()
    driver.report(failed=[m.FailedAttempt(token=open_run.token, error_type="E")])
    two = _shop("two")
    new = _takes_over(driver, "one", two)
    new.at(1_000)
    [second] = deliveries(new.pull("w1"))
    assert second.task.name == "two", "nobody can try the other again now"

    new.do(m.TaskApplied(spec=one))
    new.at(9_000)

    newest = new.successor(one, two)
    for leader in (new, newest):
        assert deliveries(leader.pull("w2")) == []
        leader.report("w1", succeeded=[second.token])
        assert [d.task.name for d in deliveries(leader.pull("w2"))] == ["one"]


def test_a_task_that_became_unreadable_and_is_deleted_keeps_nobody_waiting() -> None:
    driver, _, _ = _led_with_an_open_run_of_one()
    new = _takes_over(driver, "one", _shop("two"))
    new.at(1_000)
    new.do(m.TaskRemoved(uid="uid-one"))
    assert [d.task.name for d in deliveries(new.pull("w1"))] == ["two"]


def test_one_request_by_hand_waits_for_what_may_have_its_key_but_not_more_than_may_be_open() -> None:
    driver, _, _ = _led_with_an_open_run_of_one()
    new = _takes_over(driver, "one", _shop("hello", trigger=None))
    assert isinstance(_submit_all(new, ("a", b""), ("b", b"")), m.CommandRefused)
    assert isinstance(_submit_all(new, ("a", b"")), m.Submitted)
    assert [run.held for run in new.open_runs()] == [True]


def test_a_run_that_replaces_others_leaves_alone_what_the_end_of_one_of_them_has_ended() -> None:
    """Of two that wait, the end of the first lets a follower run, which replaces the second."""
    first = _task(OverlapPolicy.REPLACE, "first", key="/shop", trigger=None)
    second = _task(OverlapPolicy.QUEUE, "second", key="/shop", trigger=None)
    follows = _task(OverlapPolicy.REPLACE, "follows", key="/shop", source=Completion("first", Outcome.ANY))
    shop = b'{"shop":"north"}'
    driver = Driver.leading(first, second, msgspec.structs.replace(follows, parameters=shop))
    driver.submit("a", "first", parameters=shop)
    assert len(deliveries(driver.pull())) == 1
    for key, name in (("b", "first"), ("c", "second"), ("d", "first")):
        driver.submit(key, name, parameters=shop)

    open_runs = {name: len(driver.open_runs(name)) for name in ("first", "second", "follows")}
    assert open_runs == {"first": 1, "second": 0, "follows": 1}, "one that stops, and the latest"
