"""What the engine keeps in memory is bounded by what is open, never by what has been."""

from __future__ import annotations

from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.model import snapshot
from tickwheel_operator.engine.model.state import State
from tickwheel_operator.engine.spec import Backoff, EngineConfig, PoolSpec, RetryPolicy


def _timers(driver: Driver) -> int:
    return len(driver.engine.wheel) + len(driver.engine.delays)


def test_a_run_that_was_leased_leaves_no_timer_of_its_dispatch_timeout() -> None:
    driver = Driver.leading(task_spec(trigger=None, dispatch_timeout_ms=3_600_000))
    for number in range(50):
        driver.submit(f"k{number}")
    assert _timers(driver) == 50

    got = deliveries(driver.pull(free=100))

    assert len(got) == 50
    assert _timers(driver) == 0


def test_a_run_that_was_cancelled_while_it_waited_leaves_no_timer() -> None:
    retry = RetryPolicy(limit=3, backoff=Backoff(initial_ms=3_600_000, max_ms=3_600_000))
    driver = Driver.leading(task_spec(trigger=None, dispatch_timeout_ms=3_600_000, retry=retry))
    driver.submit("in a backoff")
    [delivery] = deliveries(driver.pull())
    driver.report(failed=[m.FailedAttempt(token=delivery.token, error_type="E")])
    driver.do(m.WorkerGone(key=m.WorkerKey("shops", "pool", "w0")))
    driver.submit("in a queue")
    assert _timers(driver) == 2

    driver.do(m.TaskRemoved(uid="uid-hello"))

    assert _timers(driver) == 0


def test_a_run_that_waits_has_one_timer_however_often_its_task_is_edited() -> None:
    driver = Driver.leading(task_spec(trigger=None, dispatch_timeout_ms=60_000))
    driver.submit("a")

    for generation in range(2, 20):
        spec = task_spec(trigger=None, dispatch_timeout_ms=60_000, generation=generation)
        driver.at(generation * 1_000, m.TaskApplied(spec=spec))

    assert _timers(driver) == 1
    driver.at(59_999)
    assert len(driver.engine.state.runs[1].dispatches[0].run.task.runs) == 1
    assert driver.engine.state.runs[1].dispatches[0].attempts == 0
    driver.at(60_000)
    assert driver.engine.state.runs[1].dispatches[0].attempts == 1, "the edits do not start the clock anew"


def test_a_dispatch_timeout_that_an_edit_removes_is_over_no_more() -> None:
    driver = Driver.leading(task_spec(trigger=None, dispatch_timeout_ms=60_000))
    driver.submit("a")

    driver.do(m.TaskApplied(spec=task_spec(trigger=None, generation=2)))

    assert _timers(driver) == 0


def test_a_handler_that_was_renamed_leaves_no_queue() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    pool = driver.engine.router.pool("shops", "pool")
    driver.submit("a")

    for generation in range(2, 200):
        driver.do(m.TaskApplied(spec=task_spec(trigger=None, handler=f"v{generation}", generation=generation)))
        driver.pull(handlers=(f"v{generation - 1}", f"w{generation}"), received=generation)

    assert len(pool.queues) <= 3
    assert pool.backlog() == 1
    assert len(deliveries(driver.pull(handlers=("v199",), received=300))) == 1
    assert pool.backlog() == 0


def test_the_backlog_is_what_waits_in_all_queues_through_moves_leases_and_cancellations() -> None:
    driver = Driver.leading(task_spec("one", trigger=None), task_spec("two", trigger=None, handler="other"))
    pool = driver.engine.router.pool("shops", "pool")
    runs = []
    for number in range(40):
        submitted = driver.submit(f"k{number}", name="one" if number % 2 else "two")
        assert isinstance(submitted, m.Submitted)
        runs.append(submitted.runs[0].run_id)
    assert pool.backlog() == 40

    driver.do(m.CancelRun(request=1, run_id=runs[0]))
    assert pool.backlog() == 39
    got = deliveries(driver.pull(free=5))
    assert pool.backlog() == 34
    driver.report(returned=[got[0].token])
    assert pool.backlog() == 35
    driver.do(m.TaskApplied(spec=task_spec("two", trigger=None, pool="elsewhere", generation=2)))
    assert pool.backlog() == 16
    assert driver.engine.router.pool("shops", "elsewhere").backlog() == 19
    driver.do(m.TaskRemoved(uid="uid-one"))
    assert pool.backlog() == 0


def test_a_pool_without_object_work_and_workers_is_forgotten() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.submit("a")
    for generation in range(2, 50):
        driver.do(m.TaskApplied(spec=task_spec(trigger=None, pool=f"p{generation}", generation=generation)))
    driver.do(m.PoolApplied(spec=PoolSpec(namespace="shops", name="p48")))

    driver.at(60_000)

    assert {name for _, name in driver.engine.router.pools} == {"pool", "p48", "p49"}
    assert driver.now_ms == T0 + 60_000


def _results(driver: Driver) -> list[bytes]:
    histories = [task.history_succeeded for task in driver.engine.state.tasks.values()]
    return [ended.result for history in histories for ended in history]


def test_the_details_of_the_oldest_runs_go_when_all_of_them_are_too_many_and_the_outcomes_stay() -> None:
    names = [f"t{number}" for number in range(8)]
    config = EngineConfig(max_detail_bytes=4_000)
    driver = Driver.leading(*(task_spec(name, trigger=None) for name in names), config=config)
    for round_ in range(3):
        for name in names:
            driver.submit(f"{round_}", name=name)
            [delivery] = deliveries(driver.pull(received=driver.engine.state.next_token))
            driver.report(results=[(delivery.token, b"x" * 1_000)])
            driver.now_ms += 1

    kept = sum(map(len, _results(driver)))
    assert kept == driver.engine.state.details.bytes
    assert 3_000 <= kept <= 4_000
    assert [len(task.history_succeeded) for task in driver.engine.state.tasks.values()] == [3] * 8
    views = {view.name: view for view in driver.engine.views(100).tasks}
    assert [run.result for run in views["t0"].runs] == [b"", b"", b""]
    assert [run.result for run in views["t7"].runs] == [b"x" * 1_000, b"", b""]
    assert {run.state for view in views.values() for run in view.runs} == {m.RunState.SUCCEEDED}


def test_a_long_error_keeps_its_type_and_the_beginning_of_its_message() -> None:
    spec = task_spec(trigger=None, retry=RetryPolicy(limit=0))
    driver = Driver.leading(spec, config=EngineConfig(max_detail_bytes=5_000))
    for key in "ab":
        driver.submit(key)
        [delivery] = deliveries(driver.pull(received=driver.engine.state.next_token))
        failed = m.FailedAttempt(token=delivery.token, error_type="E", message="m" * 1_000, traceback="t" * 3_000)
        driver.report(failed=[failed])

    first, second = driver.engine.state.by_uid["uid-hello"].history_failed
    assert (first.error_type, first.message, first.traceback) == ("E", "m" * 200, "")
    assert (second.message, second.traceback) == ("m" * 1_000, "t" * 3_000)


def test_details_are_counted_through_full_histories_deleted_tasks_and_checkpoints() -> None:
    driver = Driver.leading(task_spec("one", trigger=None), task_spec("two", trigger=None))
    for number in range(15):
        for name in ("one", "two"):
            driver.submit(f"{number}", name=name)
            [delivery] = deliveries(driver.pull(received=driver.engine.state.next_token))
            driver.report(results=[(delivery.token, b"x" * 100)])
            driver.now_ms += 1
    state = driver.engine.state
    assert state.details.bytes == 2_000

    restored = State(max_detail_bytes=1_000)
    snapshot.load(restored, snapshot.dump(state))
    assert restored.details.bytes == 1_000
    assert [bool(e.result) for e in restored.by_uid["uid-two"].history_succeeded] == [False] * 5 + [True] * 5

    driver.do(m.TaskRemoved(uid="uid-one"))
    driver.forget()
    assert state.details.bytes == 1_000
    driver.do(m.TaskRemoved(uid="uid-two"))
    driver.forget()
    assert state.details.bytes == 0
    assert not state.details._of
