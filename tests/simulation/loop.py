"""A deterministic asyncio event loop on virtual time, for nodes that crash, freeze and thaw.

The operator's real code runs on it unchanged. Nothing sleeps: when no callback is ready, time jumps to the next timer.
Every callback belongs to the node whose context scheduled it; those of a crashed node are dropped and those of a
frozen one are kept back until it thaws, which is what SIGKILL and SIGSTOP do to a process, at any await of its code.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections.abc import Callable
from typing import Any

__all__ = ["Node", "SimLoop", "current_node", "outside"]


class Node:
    """One process of the simulated world."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.crashed = False
        self.frozen = False
        self.at_crash: list[Callable[[], None]] = []
        """What the machine does when the process is gone: it closes its connections."""
        self._kept: list[tuple[asyncio.AbstractEventLoop, asyncio.Handle]] = []

    def crash(self) -> None:
        """The process is gone. Its callbacks are kept for `bury` only."""
        if self.crashed:
            return
        self.crashed, self.frozen = True, False
        for call in self.at_crash:
            call()
        self.at_crash.clear()

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        kept, self._kept = self._kept, []
        for loop, handle in kept:
            loop._ready.append(handle)

    def bury(self) -> None:
        """After the story: let the node's tasks run again, so that they can be cancelled and end properly."""
        self.crashed = False
        self.thaw()

    def context(self) -> contextvars.Context:
        """The context in which the node's own tasks start."""
        context = contextvars.Context()
        context.run(_node.set, self)
        return context


_node: contextvars.ContextVar[Node | None] = contextvars.ContextVar("node", default=None)


def current_node() -> Node | None:
    return _node.get()


_OUTSIDE = contextvars.Context()


def outside() -> contextvars.Context:
    """The context of what belongs to no node: the network, the stores, the world's own faults."""
    return _OUTSIDE  # Callbacks never nest, so that one is enough.


class _Owned:
    """What makes a handle belong to a node."""

    _context: contextvars.Context
    _loop: asyncio.AbstractEventLoop

    def _run(self) -> None:
        node = self._context.get(_node)
        if node is not None and (node.crashed or node.frozen):
            node._kept.append((self._loop, self))
            return
        super()._run()


class _Handle(_Owned, asyncio.Handle):
    pass


class _TimerHandle(_Owned, asyncio.TimerHandle):
    pass


class _VirtualSelector:
    """Where a real loop would wait for sockets, time passes at once."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("the simulation is stuck: nothing is ready and no timer is set")
        if timeout > 0:
            self._loop.virtual_time += timeout
        return []

    def close(self) -> None: ...


class SimLoop(asyncio.base_events.BaseEventLoop):
    """The loop. `virtual_time` is in seconds since the simulation began."""

    def __init__(self) -> None:
        super().__init__()
        self.virtual_time = 0.0
        self._selector = _VirtualSelector(self)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.virtual_time

    def _process_events(self, event_list: list[Any]) -> None: ...

    def _write_to_self(self) -> None: ...

    def _call_soon(
        self, callback: Callable[..., Any], args: Any, context: contextvars.Context | None
    ) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        timer = _TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer
