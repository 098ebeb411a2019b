"""What the engine bounds: how much may wait in a pool, and how many steps a command takes when much does."""

from __future__ import annotations

import random
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from tests.unit.engine.driver import T0, Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.model.places import Place
from tickwheel_operator.engine.sources import Completion, Outcome
from tickwheel_operator.engine.spec import (
    Backoff,
    EngineConfig,
    Overlap,
    OverlapPolicy,
    PoolSpec,
    RetryPolicy,
    TaskSpec,
)
from tickwheel_operator.engine.triggers import FixedRateTrigger
from tickwheel_operator.ledger import facts as f

ONE_AT_A_TIME = Overlap(policy=OverlapPolicy.ALLOW, max_concurrent=1)
QUEUE = Overlap(policy=OverlapPolicy.QUEUE, max_concurrent=1, queue_limit=100_000)


def _backlog(driver: Driver, pool: str = "pool") -> int:
    return driver.engine.router.pool("shops", pool).unleased()


# --- how much may wait ---


def test_runs_that_wait_for_others_count_as_backlog() -> None:
    tasks = [task_spec(f"t{number}", overlap=ONE_AT_A_TIME) for number in range(20)]
    driver = Driver.leading(*tasks, config=EngineConfig(max_backlog=30))
    for second in range(1, 20):
        driver.at(second * 1_000)
    assert len(driver.engine.state.runs) == _backlog(driver) == 40, "what is due at once is judged at once"
    assert {skip.reason for skip in driver.of(f.Skipped)} == {f.SkipReason.BACKLOG}
    refused = driver.submit("a", "t0")
    assert isinstance(refused, m.CommandRefused)
    assert (refused.reason, "40 runs wait in pool pool" in refused.detail) == (m.RefusalReason.BACKLOG_FULL, True)


def test_delayed_runs_count_as_backlog_and_those_that_ended_do_not() -> None:
    driver = Driver.leading(task_spec(trigger=None), config=EngineConfig(max_backlog=10))
    answers = [driver.submit(f"k{number}", delay_ms=86_400_000) for number in range(12)]
    assert [type(answer) for answer in answers] == [m.Submitted] * 10 + [m.CommandRefused] * 2
    for answer in answers[:5]:
        assert isinstance(answer, m.Submitted)
        driver.cancel(answer.runs[0].run_id)
    assert _backlog(driver) == 5
    assert isinstance(driver.submit("more"), m.Submitted)


def test_a_new_leader_counts_what_waits_for_others_or_for_its_instant() -> None:
    spec = task_spec(trigger=None, overlap=ONE_AT_A_TIME)
    driver = Driver.leading(spec)
    for number in range(3):
        driver.submit(f"a{number}")
        driver.submit(f"b{number}", delay_ms=5_000)
    assert len(deliveries(driver.pull())) == 1
    assert _backlog(driver) == 5
    assert _backlog(driver.successor(spec)) == 5
    assert _backlog(driver.successor(spec, now_ms=T0 + 6_000)) == 5


def _drawn(chance: random.Random, name: str, generation: int) -> TaskSpec:
    policy = chance.choice((None, None, *OverlapPolicy))
    return task_spec(
        name,
        generation=generation,
        trigger=chance.choice((None, FixedRateTrigger(400, T0))),
        pool=chance.choice(("pool", "pool", "other")),
        handler=chance.choice(("greet", "greet", "nobody")),
        jitter_ms=chance.choice((0, 0, 700)),
        overlap=Overlap()
        if policy is None
        else Overlap(
            policy=policy, max_concurrent=chance.choice((1, 2)), queue_limit=3, key=chance.choice((None, "/k"))
        ),
        parameters=b'{"k":%d}' % chance.randrange(2),
        dispatch_timeout_ms=chance.choice((None, 900)),
        retry=RetryPolicy(limit=chance.choice((0, 2)), backoff=Backoff(initial_ms=600)),
    )


def _meddle(chance: random.Random, driver: Driver, specs: dict[str, TaskSpec]) -> Driver:
    """One command of all kinds; or another leader."""
    name = chance.choice(list(specs))
    worker: dict[str, Any] = {"worker": chance.choice(("w0", "w1")), "error_us": chance.choice((None, 100))}
    tokens = [token for token, dispatch in driver.engine.state.attempts.items() if dispatch.worker]
    driver.now_ms += chance.choice((0, 1, 60, 300, 900))
    match chance.randrange(11):
        case 0 | 1:
            wanted = [
                m.Submission(key=f"{driver.now_ms} {n}", scheduled_ms=T0, delay_ms=chance.choice((0, 0, 500)))
                for n in range(chance.choice((1, 3)))
            ]
            driver.do(m.Submit(request=0, namespace="shops", name=name, runs=wanted))
        case 2 | 3 | 4:
            driver.pull(received=driver.engine.state.next_token, free=chance.choice((1, 4)), **worker)
        case 5 | 6 if tokens:
            token = chance.choice(tokens)
            by = driver.engine.state.workers[driver.engine.state.attempts[token].worker].key.name
            how = chance.choice(("succeeded", "returned", "failed"))
            failed = [m.FailedAttempt(token=token, error_type="E")]
            driver.report(by, **{how: failed if how == "failed" else [token]})
        case 7 if driver.engine.state.runs:
            driver.cancel(chance.choice(list(driver.engine.state.runs.values())).id)
        case 8:
            specs[name] = _drawn(chance, name, specs[name].generation + 1)
            driver.do(m.TaskApplied(spec=specs[name]))
        case 9:
            driver.do(m.TaskRemoved(uid=specs[name].uid, forget=chance.random() < 0.3))
            if chance.random() < 0.8:
                driver.do(m.TaskApplied(spec=specs[name]))
        case _:
            if chance.random() < 0.3:
                driver = driver.successor(*[spec for spec in specs.values() if chance.random() < 0.9])
                for uid in sorted(driver.engine.scheduler.unheard):
                    driver.do(m.TaskRemoved(uid=uid))
                driver.do(m.LeadSet(lead_ms=chance.choice((0, 250))))
            driver.do(m.Tick())
    return driver


@pytest.mark.parametrize("seed", range(12))
def test_the_count_of_what_waits_is_what_a_look_at_all_runs_finds(seed: int) -> None:
    chance = random.Random(seed)
    specs = {f"t{number}": _drawn(chance, f"t{number}", 1) for number in range(5)}
    driver = Driver.leading(*specs.values())
    driver.do(m.PoolApplied(spec=PoolSpec(namespace="shops", name="other")))
    waited = set()
    for _ in range(250):
        driver = _meddle(chance, driver, specs)
        engine = driver.engine
        queued, aside = Counter[str](), Counter[str]()
        for run in engine.state.runs.values():
            entry = engine.scheduler.entries.get(run.task.uid)
            if entry is not None and run.dispatches and not run.dispatches[0].token:
                (queued if run.dispatches[0].place is Place.QUEUED else aside)[entry.spec.pool] += 1
                waited.add(run.dispatches[0].place)
            assert not (run.held and run.dispatches[0].token), "no worker has what must wait"
        counted = {name: (pool.waits, pool.aside) for (_, name), pool in engine.router.pools.items()}
        assert {name: counts for name, counts in counted.items() if any(counts)} == {
            name: (queued[name], aside[name]) for name in (queued | aside)
        }
    assert len(waited) >= 3, "the story has runs that wait for all kinds of things"


def test_an_edit_that_adds_a_jitter_leaves_alone_what_waits_for_a_worker() -> None:
    driver = Driver.leading(task_spec())
    driver.at(1_000)
    driver.at(1_000, m.TaskApplied(spec=task_spec(jitter_ms=60_000, generation=2)))
    driver.at(1_999)
    assert (_backlog(driver), driver.engine.router.pool("shops", "pool").backlog()) == (1, 1)
    driver.do(m.TaskApplied(spec=task_spec(jitter_ms=60_000, suspend=True, generation=3)))
    for second in range(2, 70):
        driver.at(second * 1_000)
    assert driver.of(f.Undelivered) == []
    assert len(deliveries(driver.pull())) == 1


# --- how many steps ---


def _calls(action: Callable[[], object]) -> int:
    """Python functions that are called meanwhile: a measure of work that is the same on every machine."""
    count = 0

    def called(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(called)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


def _queued(runs: int) -> Driver:
    driver = Driver.leading(task_spec(trigger=None, overlap=QUEUE))
    wanted = [m.Submission(key=str(number), scheduled_ms=T0) for number in range(runs)]
    driver.do(m.Submit(request=0, namespace="shops", name="hello", runs=wanted))
    return driver


def _drain(driver: Driver) -> None:
    token = 0
    while got := deliveries(driver.pull(received=token)):
        token = got[-1].token
        driver.report(succeeded=[token])


@pytest.mark.parametrize(
    "action",
    [
        _drain,
        lambda driver: driver.do(m.TaskRemoved(uid="uid-hello")),
        lambda driver: [driver.cancel(run.id) for run in reversed(driver.open_runs())],
    ],
    ids=["drain", "delete", "cancel the newest first"],
)
def test_a_queue_of_three_times_as_many_takes_three_times_as_many_steps(action: Callable[[Driver], object]) -> None:
    few, many = _queued(100), _queued(300)
    assert _calls(lambda: action(many)) < 3.3 * _calls(lambda: action(few))
    assert many.engine.state.runs == {}


def test_a_view_of_many_that_wait_for_many_does_not_ask_each_for_all() -> None:
    def waiting(runs: int) -> Driver:
        overlap = Overlap(policy=OverlapPolicy.ALLOW, max_concurrent=runs)
        driver = Driver.leading(task_spec(trigger=None, overlap=overlap))
        wanted = [m.Submission(key=str(n), scheduled_ms=T0, object_name=f"o{n}") for n in range(2 * runs)]
        driver.do(m.Submit(request=0, namespace="shops", name="hello", runs=wanted))
        return driver

    few, many = waiting(100), waiting(300)
    assert _calls(lambda: many.engine.views(1)) < 3.3 * _calls(lambda: few.engine.views(1))


def test_what_loses_its_first_again_and_again_is_held_in_order() -> None:
    """To find the first of a plain dict costs as much as was deleted before it, which no count of calls shows."""
    driver = _queued(10)
    for generation in (2, 3):
        group = driver.open_runs()[0].group
        assert group is not None
        assert (type(group.held), type(group.admitted)) == (OrderedDict, OrderedDict)
        driver.do(m.TaskApplied(spec=task_spec(trigger=None, overlap=QUEUE, generation=generation)))


@pytest.mark.parametrize("takes_over", [False, True])
def test_a_long_chain_of_ends_is_no_chain_of_calls(takes_over: bool) -> None:
    replace = Overlap(policy=OverlapPolicy.REPLACE, max_concurrent=1)
    chain = [
        task_spec(f"c{n}", source=Completion(f"c{n - 1}", Outcome.ANY), overlap=replace, pool="other")
        for n in range(1, 400)
    ]
    driver = Driver.leading(task_spec("c0"), *chain)
    for spec in chain:
        driver.submit("k", spec.name)
    driver.at(1_000)
    [first] = deliveries(driver.pull())
    if takes_over:
        driver = driver.successor(task_spec("c0"), *chain)

    driver.report(succeeded=[first.token])

    assert len(driver.of(f.Requested)) == len(chain), (
        "each ended the one that waited, whose end is the next one's start"
    )
    assert len(driver.engine.state.runs) == len(chain)


def test_a_queue_that_is_tidied_has_what_came_back_once() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    driver.pull(free=0)  # somebody has the handler, so that the queue stays
    for number in range(40):
        driver.submit(f"k{number}")
    for generation, handler in ((2, "another"), (3, "greet")):
        driver.do(m.TaskApplied(spec=task_spec(trigger=None, handler=handler, generation=generation)))
    queue = driver.engine.router.pool("shops", "pool").queue("greet")
    assert len(queue.due) > 40, "some have two places, of which one is left"

    for run in driver.open_runs()[:30]:
        driver.cancel(run.id)

    assert len(queue.due) - queue.stale == len(driver.open_runs()) == 10
    assert len(deliveries(driver.pull(free=40, slots=40))) == 10
    assert (len(queue.due), queue.stale) == (0, 0)
