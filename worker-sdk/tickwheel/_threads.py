"""Threads for synchronous handlers, so that they never block the event loop.

`_execution` owns one pool. Unlike `run_in_executor`, with its two futures and a wake-up per call, outcomes come back in
batches: the loop is woken once for all that gathered meanwhile (no-ops, 200 at a time: 13 us of CPU for a call
there, while a whole dispatch costs 4 us here). The threads are daemons, since a handler
that never ends must not keep the process from leaving.

A handler that does not stop can be interrupted: `Interrupted` is raised in its thread at the next instruction of
Python. It must never hit the attempt that the thread runs next. So the loop first writes `interrupting`, then reads
`attempt`; the thread first writes `attempt`, then reads `interrupting`: one always sees what the other wrote.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import inspect
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from ._attempt import Attempt, Report, outcome
from .context import Context
from .errors import HandlerError, Interrupted

__all__ = ["HandlerThreads", "call"]


class _Seat:
    """What one thread runs now."""

    __slots__ = ("attempt", "ident", "interrupted", "interrupting")

    def __init__(self) -> None:
        self.attempt: Attempt | None = None
        self.ident = 0
        self.interrupting = False
        self.interrupted = False

    def calm(self) -> None:
        """See to it that no interruption is left for what this thread runs next. Raises the one that comes now."""
        self.attempt = None
        while self.interrupting:
            time.sleep(0)
        if self.interrupted:
            _raise_in(self.ident, None)
            self.interrupted = False


class HandlerThreads:
    """Up to `size` threads, started when first needed. All methods are called in the event loop."""

    def __init__(
        self, size: int, ended: Callable[[Attempt, Report], None], returned: Callable[[Attempt], None]
    ) -> None:
        self._size = size
        self._ended = ended
        self._returned = returned
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[Attempt | None] = SimpleQueue()
        self._done: deque[tuple[Attempt, bool, Report]] = deque()
        self._woken = False
        self._busy = 0
        self._context = contextvars.copy_context()
        self._seats: list[_Seat] = []

    def submit(self, attempt: Attempt) -> None:
        """Run the attempt's handler in a thread; `ended` (or `returned`, if it never began) is called in the loop."""
        self._busy += 1
        if self._busy > len(self._seats) and len(self._seats) < self._size:
            name = f"tickwheel-handler-{len(self._seats)}"
            seat = _Seat()
            self._seats.append(seat)
            threading.Thread(target=self._run, args=(seat,), name=name, daemon=True).start()
        self._work.put(attempt)

    def stop(self) -> None:
        """Let idle threads end. Those in a handler end with it."""
        for _ in self._seats:
            self._work.put(None)

    def interrupt(self, attempt: Attempt) -> bool:
        """Raise `Interrupted` in the attempt's handler; returns whether a thread runs it."""
        for seat in self._seats:
            if seat.attempt is attempt:
                seat.interrupting = True
                try:
                    if seat.attempt is attempt:
                        seat.interrupted = True
                        _raise_in(seat.ident, Interrupted)
                        return True
                finally:
                    seat.interrupting = False
        return False

    def _run(self, seat: _Seat) -> None:
        seat.ident = threading.get_ident()
        while (attempt := self._work.get()) is not None:
            if attempt.stop is not None:
                self._hand_back(attempt, False, None)
                continue
            seat.attempt = attempt
            try:
                # A copy of its own, so that no attempt sees another's context variables.
                report = self._context.copy().run(call, attempt)
                seat.attempt = None
            except Interrupted as late:  # it came when the handler had just ended
                report = outcome(attempt, None, late)
            while attempt.stop is not None:
                try:
                    seat.calm()
                    break
                except Interrupted:  # at most once: no attempt is interrupted twice
                    continue
            self._hand_back(attempt, True, report)

    def _hand_back(self, attempt: Attempt, began: bool, report: Report) -> None:
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


def call(attempt: Attempt) -> Report:
    """Run the attempt's handler in this thread, and make the report of it."""
    handler = attempt.handler
    value = error = None
    try:
        if handler.bare and len(attempt.lease.parameters) == 2:  # `{}`
            value = handler.function(Context(attempt))
        else:
            value = handler.function(Context(attempt), **handler.arguments(attempt.lease.parameters))
        if value is not None and inspect.iscoroutine(value):
            value.close()
            raise HandlerError(
                f"handler {handler.name} returned a coroutine: define it with `async def`, or give its decorator "
                "functools.wraps"
            )
    except BaseException as raised:  # whatever the user's code raises is the attempt's outcome
        error = raised
    return outcome(attempt, value, error)


def _raise_in(ident: int, error: type[BaseException] | None) -> None:
    """Have the thread raise the error at its next instruction; none: no longer."""
    value = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), value)
