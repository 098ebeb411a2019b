"""The work queue's promises."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tickwheel_operator.workqueue import WorkFailed, WorkQueue


@asynccontextmanager
async def running(work: Callable[[str], Any], **options: Any) -> AsyncIterator[WorkQueue[str]]:
    queue: WorkQueue[str] = WorkQueue(work, name="test", **{"workers": 1, "initial_s": 0.01, **options})
    task = asyncio.create_task(queue.run())
    yield queue
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.002)


async def test_a_key_that_is_added_twice_is_worked_on_once() -> None:
    done: list[str] = []

    async def work(key: str) -> None:
        done.append(key)

    async with running(work) as queue:
        queue.add("a")
        queue.add("a")
        queue.add("b")
        await until(lambda: "b" in done)
        assert done == ["a", "b"]


async def test_a_key_that_is_added_while_it_is_worked_on_is_worked_on_again_and_never_twice_at_once() -> None:
    begun, together, gate = [], [0, 0], asyncio.Event()

    async def work(key: str) -> None:
        begun.append(key)
        together[0] += 1
        together[1] = max(together)
        await gate.wait()
        together[0] -= 1

    async with running(work, workers=3) as queue:
        queue.add("a")
        await until(lambda: begun)
        queue.add("a")
        await asyncio.sleep(0.02)
        assert len(begun) == 1
        gate.set()
        await until(lambda: len(begun) == 2)
        assert together[1] == 1


async def test_work_that_fails_is_tried_again_and_delays_nobody() -> None:
    tries: list[str] = []

    async def work(key: str) -> None:
        tries.append(key)
        if key == "bad" and tries.count("bad") < 3:
            raise OSError("no")

    async with running(work) as queue:
        queue.add("bad")
        queue.add("good")
        await until(lambda: tries.count("bad") == 3)
        assert tries[:2] == ["bad", "good"]
        assert len(queue) == 0


async def test_lanes_share_the_turns_by_weight_and_groups_take_turns_in_each() -> None:
    order: list[str] = []

    async def work(key: str) -> None:
        order.append(key)

    async with running(work, weights=(2, 1), group=lambda key: key[0]) as queue:
        for number in range(4):
            queue.add(f"a{number}", 0)
        for key, lane in (("b0", 0), ("c0", 0), ("a8", 1), ("a9", 1), ("b9", 1)):
            queue.add(key, lane)
        await until(lambda: len(order) == 9)
        assert [key for key in order if key[1] < "8"] == ["a0", "b0", "c0", "a1", "a2", "a3"]
        assert [key for key in order if key[1] >= "8"] == ["a8", "b9", "a9"]
        assert {"a8", "b9"} < set(order[:6]), "the second lane has a third of the turns"


async def test_no_lane_waits_until_another_is_empty_and_a_key_keeps_its_first_lane() -> None:
    order: list[str] = []

    async def work(key: str) -> None:
        order.append(key)
        if key == "a" and len(order) < 100:
            queue.add("a", 0)

    async with running(work, weights=(9, 1)) as queue:
        queue.add("a", 0)
        queue.add("b", 1)
        queue.add("c", 1)
        queue.add("c", 0)
        queue.add("c", 1)
        await until(lambda: "b" in order)
        assert order.index("c") <= 1
        assert order.index("b") <= 12


async def test_the_age_of_the_oldest_counts_what_waits_and_what_fails_and_no_pause() -> None:
    gate, failing = asyncio.Event(), True

    async def work(key: str) -> float | None:
        await gate.wait()
        if key == "bad" and failing:
            raise OSError("no")
        return 60.0 if key == "pauses" else None

    async with running(work, workers=3) as queue:
        assert queue.oldest_s == 0.0
        for key in ("bad", "good", "pauses"):
            queue.add(key)
        await until(lambda: queue.oldest_s > 0.02)
        gate.set()
        await until(lambda: len(queue._since) == 1)
        before = queue.oldest_s
        await until(lambda: queue.oldest_s > before)
        failing = False
        await until(lambda: queue.oldest_s == 0.0)
        assert len(queue) == 1, "the one that pauses"


async def test_a_key_can_be_looked_at_again_later_or_sooner() -> None:
    seen: list[str] = []

    async def work(key: str) -> float | None:
        seen.append(key)
        return 60.0 if len(seen) == 1 else None

    async with running(work) as queue:
        queue.add("a")
        await until(lambda: len(queue) == 1 and seen)
        queue.add("a")
        await until(lambda: len(seen) == 2)
        assert len(queue) == 0


async def test_a_discarded_key_is_not_worked_on() -> None:
    seen: list[str] = []

    async def work(key: str) -> None:
        seen.append(key)

    async with running(work) as queue:
        queue.add("a")
        queue.add_later("b", 0.01)
        queue.discard("a")
        queue.discard("b")
        queue.add("c")
        await until(lambda: seen)
        await asyncio.sleep(0.05)
        assert seen == ["c"]


async def test_an_outage_is_told_once_for_each_kind_of_failure(caplog: pytest.LogCaptureFixture) -> None:
    failed: list[str] = []

    async def work(key: str) -> None:
        failed.append(key)
        raise WorkFailed(f"{key} cannot be written", kind="403" if key == "x" else "unreachable")

    with caplog.at_level(logging.WARNING, logger="tickwheel_operator.workqueue"):
        async with running(work) as queue:
            for number in range(50):
                queue.add(f"k{number}")
            queue.add("x")
            await until(lambda: "x" in failed and len(failed) > 60)

    assert [record.getMessage().partition(" cannot")[0][-2:] for record in caplog.records] == ["k0", "'x"]


@asynccontextmanager
async def at_work(
    results: list[float | Exception | None],
) -> AsyncIterator[tuple[WorkQueue[str], asyncio.Event, list[str]]]:
    """A queue whose first work on `a` has begun, the event that ends it, and what was begun so far."""
    begun: list[str] = []
    gate = asyncio.Event()

    async def work(key: str) -> float | None:
        begun.append(key)
        await gate.wait()
        result = results.pop(0) if results else None
        if isinstance(result, Exception):
            raise result
        return result

    async with running(work, initial_s=60.0) as queue:
        queue.add("a")
        await until(lambda: begun)
        yield queue, gate, begun


async def test_a_key_that_is_added_while_its_work_asks_for_a_delay_is_worked_on_at_once() -> None:
    async with at_work([3_600.0]) as (queue, gate, begun):
        queue.add("a")
        gate.set()
        await until(lambda: len(begun) == 2)
        assert len(queue) == 0


async def test_a_key_that_is_added_while_its_work_fails_waits_for_the_delay_of_the_failure() -> None:
    async with at_work([OSError("no")]) as (queue, gate, begun):
        queue.add("a")
        gate.set()
        await until(lambda: len(queue) == 1)
        queue.add("b")
        await until(lambda: "b" in begun)
        assert begun == ["a", "b"] and len(queue) == 1


@pytest.mark.parametrize("result", [None, 3_600.0])
async def test_a_delay_that_is_asked_for_during_the_work_is_kept(result: float | None) -> None:
    async with at_work([result]) as (queue, gate, begun):
        queue.add_later("a", 3_600.0)
        queue.add_later("a", 0.01)
        gate.set()
        await until(lambda: len(begun) == 2)
        assert len(queue) == 0


async def test_of_two_delays_the_shorter_counts() -> None:
    async with at_work([]) as (queue, gate, begun):
        gate.set()
        queue.add_later("b", 3_600.0)
        queue.add_later("b", 0.01)
        queue.add_later("b", 3_600.0)
        await until(lambda: "b" in begun)
        assert len(queue) == 0


@pytest.mark.parametrize("result", [3_600.0, OSError("no")])
async def test_a_key_that_is_discarded_during_its_work_is_not_looked_at_again(result: float | Exception) -> None:
    async with at_work([result]) as (queue, gate, begun):
        queue.discard("a")
        gate.set()
        queue.add("b")
        await until(lambda: "b" in begun)
        assert len(queue) == 0


async def test_a_key_that_is_added_after_it_was_discarded_is_worked_on() -> None:
    async with at_work([3_600.0]) as (queue, gate, begun):
        queue.clear()
        queue.add("a")
        gate.set()
        await until(lambda: len(begun) == 2)
