"""What every strategy promises, over workers and turns at random."""

from __future__ import annotations

import random

import pytest
from tests.unit.engine.driver import Driver, task_spec

from tickwheel_operator.engine.dispatch.eligibility import has_slots_to_spare, knows_the_time
from tickwheel_operator.engine.dispatch.queues import PoolQueue
from tickwheel_operator.engine.dispatch.strategies import ROUND_ROBIN, Strategy
from tickwheel_operator.engine.dispatch.worker import LiveWorker
from tickwheel_operator.engine.messages import WorkerKey, WorkerSeen
from tickwheel_operator.engine.model.runs import Dispatch

POOL = PoolQueue(10_000)
STRATEGIES = {"RoundRobin": ROUND_ROBIN}


def _workers(number: int) -> list[LiveWorker]:
    return [
        LiveWorker(
            WorkerSeen(key=WorkerKey("shops", "pool", f"w{n}"), instance="i", handlers=("greet",), slots=4), POOL
        )
        for n in range(number)
    ]


def _dispatch() -> Dispatch:
    driver = Driver.leading(task_spec(trigger=None))
    driver.submit("k")
    [run] = driver.open_runs()
    return run.dispatches[0]


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_a_strategy_chooses_a_candidate_wherever_there_is_one(strategy: Strategy) -> None:
    dispatch, chance = _dispatch(), random.Random(1)
    assert strategy.choose(dispatch, iter(())) is None
    for number in range(1, 20):
        candidates = _workers(number)
        chance.shuffle(candidates)
        assert strategy.choose(dispatch, iter(candidates)) in candidates


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_a_strategy_chooses_the_same_of_the_same(strategy: Strategy) -> None:
    dispatch, candidates = _dispatch(), _workers(9)
    assert len({strategy.choose(dispatch, iter(candidates)) for _ in range(5)}) == 1


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_a_strategy_changes_neither_the_dispatch_nor_the_workers(strategy: Strategy) -> None:
    def seen() -> list[object]:
        return [[getattr(thing, name, None) for name in type(thing).__slots__] for thing in (dispatch, *candidates)]

    dispatch, candidates = _dispatch(), _workers(5)
    before = seen()
    strategy.choose(dispatch, iter(candidates))
    assert seen() == before


def test_round_robin_gives_each_worker_its_turn() -> None:
    driver = Driver.leading(task_spec(trigger=None))
    for name in ("w0", "w1", "w2"):
        driver.pull(name, free=4)
    for number in range(6):
        driver.submit(f"k{number}")
    answered = [len(driver.engine.state.attempts_of(number)) for number in driver.engine.state.workers]
    assert answered == [1, 1, 1], "and the rest waits for their next pulls"


def test_a_worker_is_eligible_by_its_clock_and_by_its_slots() -> None:
    [worker] = _workers(1)
    worker.early = False
    assert not knows_the_time(worker)
    worker.early = True
    assert knows_the_time(worker)
    for slots, free, spare in ((4, 1, False), (4, 2, True), (1, 1, True), (0, 0, True)):
        worker.slots, worker.free = slots, free
        assert has_slots_to_spare(worker) is spare, (slots, free)
