"""The simulated world: one seed, one clock that jumps, nodes, and a network that loses, delays and repeats.

Nothing here knows what is right: `record.py` does. The operator's code runs as it is; only the stores, the network and
the clocks under it are the world's.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tests.simulation.loop import Node, SimLoop, current_node, outside
from tests.simulation.record import Record

__all__ = ["Lost", "SimClock", "World"]

T = TypeVar("T")
EPOCH_MS = 1_700_000_000_000


class Lost(Exception):
    """No answer came within the time that the caller gave it."""


class World:
    """Time, chance and the network."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.loop = SimLoop()
        self.record = Record(self.now_ms)
        self.nodes: list[Node] = []
        self.faults = True
        """False in the quiet phase: every message arrives, soon."""

    def now_ms(self) -> int:
        return EPOCH_MS + int(self.loop.virtual_time * 1000)

    def chance(self, probability: float) -> bool:
        return self.faults and self.random.random() < probability

    def later(self, delay_s: float, call: Callable[[], object]) -> None:
        """Something that happens to the world, whatever its nodes do."""
        self.loop.call_later(delay_s, call, context=outside())

    def latency_s(self) -> float:
        """Mostly below 3 ms; now and then a message is late by seconds."""
        if self.chance(0.01):
            return self.random.uniform(0.05, 3.0)
        return self.random.uniform(0.000_2, 0.003)

    async def ask(
        self, serve: Callable[[Callable[[object, BaseException | None], None]], None], timeout_s: float, loss: float
    ) -> Any:
        """Send a request; `serve` is called where it arrives, with a function that sends the answer back.

        The caller gets `Lost` when no answer came in time. The request may arrive all the same, later or twice.
        """
        future: asyncio.Future[Any] = self.loop.create_future()

        def settle(result: object, error: BaseException | None) -> None:
            if not future.done():
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)

        def answer(result: object, error: BaseException | None) -> None:
            if not self.chance(loss):
                self.later(self.latency_s(), lambda: settle(result, error))

        def give_up() -> None:
            settle(None, Lost())

        if not self.chance(loss):
            self.later(self.latency_s(), lambda: serve(answer))
            if self.chance(loss / 2):
                self.later(self.latency_s(), lambda: serve(answer))
        self.later(timeout_s, give_up)
        return await future

    def spawn(self, node: Node, coroutine: Awaitable[object], name: str) -> asyncio.Task[object]:
        """A task of the node: it stops, freezes and thaws with it."""
        if node not in self.nodes:
            self.nodes.append(node)
        task = self.loop.create_task(coroutine, name=f"{node.name} {name}", context=node.context())  # type: ignore[arg-type]
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        return task

    def end(self) -> None:
        """After the story: every task ends, so that nothing of it is left to the garbage collector."""
        self.faults = False
        self.record.closed = True
        for node in self.nodes:
            node.bury()
        for _ in range(5):
            tasks = asyncio.all_tasks(self.loop)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=10))
        self.loop.close()


class SimClock:
    """A node's clocks: its wall clock is off by some, and jumps; its boot clock runs through a freeze."""

    def __init__(self, world: World, offset_ms: int = 0) -> None:
        self._world = world
        self.offset_ms = offset_ms

    def now_ms(self) -> int:
        return self._world.now_ms() + self.offset_ms

    def boot_ms(self) -> int:
        return int(self._world.loop.virtual_time * 1000)


def actor() -> str:
    """Who acts now, for the history."""
    node = current_node()
    return node.name if node is not None else "world"
