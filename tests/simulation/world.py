"""The simulated world: one seed, one clock that jumps, nodes, and a network that loses, delays, repeats and parts.

Nothing here knows what is right: `record.py` does. The operator's code runs as it is; only the stores, the network and
the clocks under it are the world's.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from tests.simulation.loop import Node, SimLoop, current_node, outside
from tests.simulation.record import EPOCH_MS, Record, Violated

__all__ = ["API", "Answerer", "Lost", "SimClock", "World"]

API = "api"
"""The name under which the network knows the API server, which holds the stores and the objects."""

Answerer: TypeAlias = Callable[[object, BaseException | None], None]
"""Sends back a result or an error."""


class Lost(Exception):
    """No answer came within the time that the caller gave it."""


class World:
    """Time, chance and the network."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.loop: asyncio.BaseEventLoop = SimLoop()
        self.loop.set_exception_handler(self._failed)
        self.record = Record(self.now_ms, self.loop.stop)
        self.nodes: dict[Node, None] = {}
        self.faults = True
        """False in the quiet phase: every message arrives, soon."""
        self.loss = self.random.choice((0.0, 0.01, 0.02, 0.06))
        """Of requests, and of answers. Half as many requests arrive twice."""
        self.lateness = self.random.choice((0.0, 0.005, 0.01, 0.03))
        """Of messages: how many take up to two seconds."""
        self.drowsiness = self.random.choice((0.0, 0.0, 0.0, 0.02))
        """Of leaders: how many appends are followed by a long sleep at once, with the answer on its way."""
        self._cuts: set[tuple[str, str]] = set()

    def now_ms(self) -> int:
        return EPOCH_MS + int(self.loop.time() * 1000)

    def chance(self, probability: float) -> bool:
        return self.faults and self.random.random() < probability

    def later(self, delay_s: float, call: Callable[[], object]) -> None:
        """Something that happens to the world, whatever its nodes do."""
        self.loop.call_later(delay_s, call, context=outside())

    # --- the network ---

    def latency_s(self) -> float:
        """Mostly below 3 ms; now and then a message is late by seconds."""
        if self.chance(self.lateness):
            return self.random.uniform(0.05, 2.0)
        return self.random.uniform(0.000_2, 0.003)

    def cut(self, source: str, target: str, seconds: float) -> None:
        """No message passes between the two for so long; `*` stands for everybody."""
        self.record.say("network", f"{source} does not reach {target} for {seconds:.1f} s")
        self._cuts.add((source, target))
        self.later(seconds, lambda: self._cuts.discard((source, target)))

    def heal(self) -> None:
        """From now on no message is lost, late or repeated."""
        self.faults = False
        self._cuts.clear()
        for node in self.nodes:
            self.thaw(node)

    def is_cut(self, source: str, target: str) -> bool:
        cuts = self._cuts
        return bool(cuts) and ((source, target) in cuts or (source, "*") in cuts or ("*", target) in cuts)

    async def ask(self, target: str, serve: Callable[[Answerer], None], timeout_s: float) -> Any:
        """Send a request; `serve` is called where it arrives, with a function that sends the answer back.

        The caller gets `Lost` when no answer came in time. The request may arrive all the same, later or twice.
        """
        node = current_node()
        source = node.name if node is not None else "user"
        future: asyncio.Future[Any] = self.loop.create_future()

        def settle(result: object, error: BaseException | None) -> None:
            if not future.done():
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)

        def answer(result: object, error: BaseException | None) -> None:
            if not self.is_cut(source, target) and not self.chance(self.loss):
                self.later(self.latency_s(), lambda: settle(result, error))

        if not self.is_cut(source, target) and not self.chance(self.loss):
            self.later(self.latency_s(), lambda: serve(answer))
            if self.chance(self.loss / 2):
                self.later(self.latency_s(), lambda: serve(answer))
        giving_up = self.loop.call_later(timeout_s, settle, None, Lost(), context=outside())
        try:
            return await future
        finally:
            giving_up.cancel()

    # --- processes ---

    def spawn(self, node: Node, coroutine: Coroutine[Any, Any, object], name: str) -> asyncio.Task[object]:
        """A task of the node: it stops, freezes and thaws with it."""
        self.nodes[node] = None
        task = self.loop.create_task(coroutine, name=f"{node.name} {name}", context=node.context())
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        task.add_done_callback(self._ended, context=outside())
        return task

    def interrupt(self, node: Node, task: asyncio.Task[object]) -> None:
        """Cancel a task of the node, as soon as the node does anything."""
        self.loop.call_soon(task.cancel, context=node.context())

    def _ended(self, task: asyncio.Task[object]) -> None:
        """Whatever happens in this world, no task of a process may end with an error."""
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, Violated):
            self.record.violated(f"{task.get_name()} ended with {error!r}")

    def _failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Nor a callback, or a task of which nobody looks at the end."""
        error = context.get("exception")
        if error is not None and not isinstance(error, Violated):
            self.record.violated(f"{context['message']}: {error!r}")

    def freeze(self, node: Node, seconds: float) -> None:
        """SIGSTOP, a paused machine, a suspended laptop: what arrives meanwhile waits."""
        if node.crashed or node.frozen:
            return
        self.record.say(node.name, f"is frozen for {seconds:.1f} s")
        node.freeze()
        self.later(seconds, lambda: self.thaw(node))

    def thaw(self, node: Node) -> None:
        if node.frozen:
            self.record.say(node.name, "thaws")
            node.thaw()

    def end(self) -> None:
        """After the story: every task ends, so that nothing of it is left to the garbage collector."""
        self.heal()
        self.record.closed = True
        for node in self.nodes:
            node.bury()
        self.loop.call_soon(self.loop.stop)  # One may be left over from the end of the story.
        self.loop.run_forever()
        for _ in range(5):
            tasks = asyncio.all_tasks(self.loop)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=10))
        self.loop.close()


class SimClock:
    """A node's clocks. Both are a little too fast or too slow; the wall clock is off by some, and jumps; the boot clock
    begins anywhere, and runs through a freeze."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rate = 1_000 * world.random.uniform(0.995, 1.005)
        self._booted_ms = world.random.randrange(10**9)
        self.offset_ms = world.random.randint(-200, 200)
        self.jumps = 0
        """How often the wall clock was set."""

    def jump(self, by_ms: int) -> None:
        """Somebody sets the wall clock. The boot clock goes on."""
        self.offset_ms += by_ms
        self.jumps += 1

    def now_ms(self) -> int:
        return EPOCH_MS + int(self._world.loop.time() * self._rate) + self.offset_ms

    def now_us(self) -> int:
        return self.now_ms() * 1_000

    def boot_ms(self) -> int:
        return self._booted_ms + int(self._world.loop.time() * self._rate)
