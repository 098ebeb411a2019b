"""`spec.concurrency`: how many runs of a group may be open, and what becomes of one more."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.spec import Misfire, MisfirePolicy, Overlap, OverlapPolicy, TaskSpec
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
