"""Fair turns: bounds that hold, sources that wait for no other, and allowances that refill."""

from __future__ import annotations

import asyncio

import pytest

from tickwheel_operator.turns import Allowance, Crowded, Turns


class Desk:
    """What is scarce: who is at it, and who has been."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.at: list[str] = []
        self.most = 0
        self.been: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def visit(self, source: str, gate: asyncio.Event) -> None:
        async with self.turns.of(source):
            self.at.append(source)
            self.most = max(self.most, len(self.at))
            await gate.wait()
            self.at.remove(source)
            self.been.append(source)

    async def come(self, source: str, gate: asyncio.Event) -> asyncio.Task[None]:
        task = asyncio.create_task(self.visit(source, gate))
        self.tasks.append(task)
        await asyncio.sleep(0)
        return task


async def test_no_more_than_the_bound_hold_a_turn_and_no_source_more_than_its_share() -> None:
    desk, gate = Desk(Turns(4, most_of_one=3, waiting=100)), asyncio.Event()
    for _ in range(10):
        await desk.come("flood", gate)
    assert desk.at == ["flood"] * 3
    await desk.come("good", gate)
    assert desk.at.count("good") == 1
    gate.set()
    await asyncio.gather(*desk.tasks)
    assert desk.most == 4 and len(desk.been) == 11


async def test_a_source_that_waits_is_next_however_many_wait_of_another() -> None:
    desk, first, rest = Desk(Turns(1, most_of_one=1, waiting=1_000)), asyncio.Event(), asyncio.Event()
    rest.set()
    await desk.come("flood", first)
    for _ in range(500):
        await desk.come("flood", rest)
    await desk.come("good", rest)
    await desk.come("other", rest)
    first.set()
    await asyncio.gather(*desk.tasks)
    assert desk.been[:5] == ["flood", "flood", "good", "other", "flood"]


async def test_when_too_many_wait_the_source_with_the_most_loses_its_latest_and_a_newcomer_gets_in() -> None:
    desk, first, rest = Desk(Turns(1, most_of_one=1, waiting=5)), asyncio.Event(), asyncio.Event()
    rest.set()
    await desk.come("flood", first)
    waiting = [await desk.come("flood", rest) for _ in range(5)]
    with pytest.raises(Crowded):
        await (await desk.come("flood", rest))
    good = await desk.come("good", rest)
    with pytest.raises(Crowded):
        await waiting[-1]
    first.set()
    await good
    await asyncio.gather(*waiting[:-1])


async def test_one_that_leaves_while_it_waits_or_as_its_turn_comes_blocks_nobody() -> None:
    turns = Turns(1, most_of_one=1, waiting=10)
    desk, first, rest = Desk(turns), asyncio.Event(), asyncio.Event()
    rest.set()
    holder = await desk.come("a", first)
    leaves, comes_at_the_same_time = await desk.come("b", rest), await desk.come("c", rest)
    leaves.cancel()
    await asyncio.gather(leaves, return_exceptions=True)
    first.set()
    await holder  # its turn goes to c in this moment
    comes_at_the_same_time.cancel()
    await asyncio.gather(comes_at_the_same_time, return_exceptions=True)
    await (await desk.come("d", rest))
    assert desk.been[-1] == "d" and turns._held == 0 and not turns._queues and not turns._holding


@pytest.mark.parametrize("sources", [1, 7])
async def test_when_all_leave_in_one_moment_nothing_stays_behind(sources: int) -> None:
    """As when a flood ends: its connections are lost together, those that hold a turn and those that wait."""
    turns = Turns(4, most_of_one=3, waiting=1_000)
    desk, never, rest = Desk(turns), asyncio.Event(), asyncio.Event()
    rest.set()
    for number in range(100):
        await desk.come(f"flood-{number % sources}", never)
    good = await desk.come("good", rest)
    for task in desk.tasks:
        if task is not good:
            task.cancel()
    await asyncio.gather(*desk.tasks, return_exceptions=True)
    assert desk.been == ["good"]
    assert turns._held == 0 and turns._waiting == 0 and not turns._queues and not turns._holding


async def test_one_that_is_pushed_out_in_the_moment_in_which_it_leaves_harms_nobody() -> None:
    turns = Turns(1, most_of_one=1, waiting=3)
    desk, first, rest = Desk(turns), asyncio.Event(), asyncio.Event()
    rest.set()
    await desk.come("flood", first)
    waiting = [await desk.come("flood", rest) for _ in range(3)]
    waiting[-1].cancel()
    good = asyncio.create_task(desk.visit("good", rest))  # runs before the cancelled one does
    desk.tasks.append(good)
    first.set()
    await asyncio.gather(*desk.tasks, return_exceptions=True)
    assert "good" in desk.been and turns._held == 0 and turns._waiting == 0


def test_an_allowance_is_of_each_source_refills_and_forgets() -> None:
    allowance = Allowance(per_s=10, burst=3, sources=2)
    for _ in range(3):
        assert allowance.is_left("a", 0)
        allowance.spend("a", 0)
    assert not allowance.is_left("a", 0) and allowance.is_left("b", 0)
    assert not allowance.is_left("a", 99) and allowance.is_left("a", 100)
    allowance.spend("b", 0)
    allowance.spend("c", 0)
    assert allowance.is_left("a", 0), "it failed longest ago"
