"""Threads for synchronous handlers, so that they never block the event loop.

`_execution` owns one pool. Unlike `run_in_executor`, with its two futures and a wake-up per call, outcomes come back in
batches: the loop is woken once for all that gathered meanwhile (no-ops, 200 at a time: 13 us of CPU for a call
there, while a whole dispatch costs 4 us here). The threads are daemons, since a handler
that never ends must not keep the process from leaving.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from ._attempt import Attempt, outcome
from ._protocol import ErrorReport, ResultReport
from .context import Context
from .errors import HandlerError

__all__ = ["HandlerThreads"]

_Ended = Callable[[Attempt, "ResultReport | ErrorReport | int | None"], None]


class HandlerThreads:
    """Up to `size` threads, started when first needed. All methods are called in the event loop."""

    def __init__(self, size: int, ended: _Ended, returned: Callable[[Attempt], None]) -> None:
        self._size = size
        self._ended = ended
        self._returned = returned
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[Attempt | None] = SimpleQueue()
        self._done: deque[tuple[Attempt, bool, ResultReport | ErrorReport | int | None]] = deque()
        self._woken = False
        self._busy = 0
        self._context = contextvars.copy_context()
        self._threads: list[threading.Thread] = []

    def submit(self, attempt: Attempt) -> None:
        """Run the attempt's handler in a thread; `ended` (or `returned`, if it never began) is called in the loop."""
        self._busy += 1
        if self._busy > len(self._threads) and len(self._threads) < self._size:
            name = f"tickwheel-handler-{len(self._threads)}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._work.put(attempt)

    def stop(self) -> None:
        """Let idle threads end. Those in a handler end with it."""
        for _ in self._threads:
            self._work.put(None)

    def _run(self) -> None:
        while (attempt := self._work.get()) is not None:
            if attempt.stop is not None:
                self._hand_back(attempt, False, None)
            else:
                # A copy of its own, so that no attempt sees another's context variables.
                report = self._context.copy().run(_call, attempt)
                self._hand_back(attempt, True, report)

    def _hand_back(self, attempt: Attempt, began: bool, report: ResultReport | ErrorReport | int | None) -> None:
        self._done.append((attempt, began, report))
        if not self._woken:  # read after the append, cleared before the collecting: no outcome is left lying
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._collect)
            except RuntimeError:
                return  # the loop is closed: the worker has left without waiting for this handler

    def _collect(self) -> None:
        self._woken = False
        while self._done:
            attempt, began, report = self._done.popleft()
            self._busy -= 1
            if began:
                self._ended(attempt, report)
            else:
                self._returned(attempt)


def _call(attempt: Attempt) -> ResultReport | ErrorReport | int | None:
    handler = attempt.handler
    value = error = None
    try:
        value = handler.function(Context(attempt), **handler.arguments(attempt.lease.parameters))
        if inspect.iscoroutine(value):
            value.close()
            raise HandlerError(
                f"handler {handler.name} returned a coroutine: define it with `async def`, or give its decorator "
                "functools.wraps"
            )
    except BaseException as raised:  # whatever the user's code raises is the attempt's outcome
        error = raised
    return outcome(attempt, value, error)
