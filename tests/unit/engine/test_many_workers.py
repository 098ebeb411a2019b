"""A worker that joins, leaves or is taken over costs what it holds itself, however many others there are.

Work is counted in executed lines, which no busy machine changes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from tests.unit.engine.driver import Driver, deliveries, task_spec

from tickwheel_operator.engine import messages as m
from tickwheel_operator.engine.model import snapshot

_FEW, _MANY = 20, 1_000


def _with_workers(number: int) -> Driver:
    """A new leader that replayed the log of `number` workers with two attempts each."""
    spec = task_spec(trigger=None)
    driver = Driver.leading(spec)
    for worker in range(number):
        for run in range(2):
            driver.submit(f"{worker} {run}")
        assert len(deliveries(driver.pull(f"w{worker}", free=2))) == 2
    return driver.successor(spec)


def _lines(work: Callable[[], object]) -> int:
    """How many lines of Python the work takes."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def _costs(work: Callable[[Driver], object]) -> tuple[int, int]:
    few, many = _with_workers(_FEW), _with_workers(_MANY)
    return _lines(lambda: work(few)), _lines(lambda: work(many))


def test_the_first_pull_of_a_worker_looks_at_its_own_attempts_only() -> None:
    few, many = _costs(lambda driver: driver.pull("w7", free=2))
    assert many <= few + _FEW


def test_a_process_that_replaces_another_looks_at_that_one_only() -> None:
    few, many = _costs(lambda driver: driver.pull("w7", instance="new", free=2))
    assert many <= few + _FEW


def test_a_worker_whose_pod_is_gone_loses_its_own_attempts_only() -> None:
    gone = m.WorkerGone(key=Driver.seen("w7").key)
    few, many = _costs(lambda driver: driver.do(gone))
    assert many <= few + _FEW


def test_a_connected_worker_that_leaves_loses_its_own_attempts_only() -> None:
    def leave(driver: Driver) -> None:
        driver.report("w7", leaving=True)

    few, many = _costs(leave)
    assert many <= few + _FEW


def test_what_a_worker_held_is_found_after_a_checkpoint_too() -> None:
    driver = _with_workers(3)
    new = Driver(task_spec(trigger=None), now_ms=driver.now_ms)
    new.engine.restore(list(driver.engine.snapshot()))
    new.do(m.CatalogSynced())
    held = [d.token for d in new.engine.state.attempts_of(2)]
    assert len(held) == 2
    new.do(m.WorkerGone(key=Driver.seen("w1").key))
    assert new.engine.state.attempts_of(2) == []
    assert not set(held) & set(new.engine.state.attempts)


def test_a_process_that_a_leader_forgot_and_named_again_has_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader forgets it with a checkpoint that is never completed; its successor replays both names."""
    monkeypatch.setattr(snapshot, "_WORKER_MEMORY", 1)
    leader = Driver.leading(task_spec(trigger=None))
    leader.submit("one")
    [first] = deliveries(leader.pull())
    leader.report(succeeded=[first.token])
    leader.submit("of another")
    [other] = deliveries(leader.pull("w1"))
    leader.report("w1", succeeded=[other.token])
    list(leader.engine.snapshot())
    leader.submit("two")
    [second] = deliveries(leader.pull(received=first.token))

    successor = leader.successor(task_spec(trigger=None))

    assert list(successor.engine.state.workers) == [2, 3]
    successor.engine.snapshot().end()
    successor.pull(received=second.token)
    assert second.token in successor.engine.state.attempts
    assert successor.report(succeeded=[second.token]).fenced == []
    list(successor.engine.snapshot())
