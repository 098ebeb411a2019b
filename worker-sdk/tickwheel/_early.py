"""Attempts that were leased early and wait for their instant.

`_execution` puts them here, and begins them when they come out. One kernel timer for all of them, set to the earliest:
the loop's own timers have a grain of a millisecond and may fire that much early (uvloop), a timerfd wakes it within
0.1 to 0.4 ms (2 cores, p50 0.19 and p99 0.36 ms from instant to handler; `call_at`: 0.24 and 0.75 ms, and up to 1 ms
early; asyncio's own loop: 0.98 and 2.6 ms). Invariant: none comes out before its instant.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import itertools
import os
import sys
from collections.abc import Callable
from heapq import heappop, heappush
from time import CLOCK_MONOTONIC, monotonic
from typing import Protocol

from ._attempt import Attempt

__all__ = ["EarlyStarts"]


class _Timer(Protocol):
    """Calls back in the loop at an instant, or somewhat after it."""

    def set(self, at: float) -> None:
        """Call at this instant (seconds of `time.monotonic`) instead of any that was set before."""

    def close(self) -> None:
        """Never call."""


class EarlyStarts:
    """A heap of attempts and one timer. All methods are called in the event loop."""

    def __init__(self, begin: Callable[[list[Attempt]], None]) -> None:
        self._begin = begin
        self._heap: list[tuple[float, int, Attempt]] = []
        self._waiting: set[Attempt] = set()
        """Those in the heap that were not discarded: to take one out of a heap costs the time of looking at all."""
        self._order = itertools.count()
        self._timer: _Timer | None = None

    def add(self, attempt: Attempt, start: float) -> None:
        """Begin it at `start` (seconds of `time.monotonic`)."""
        heappush(self._heap, (start, next(self._order), attempt))
        self._waiting.add(attempt)
        if self._heap[0][0] == start:
            self._set()

    def discard(self, attempt: Attempt) -> bool:
        """Forget it; returns whether it was here."""
        if attempt not in self._waiting:
            return False
        self._waiting.remove(attempt)
        return True

    def take(self) -> list[Attempt]:
        """Take out all that wait."""
        waiting = [attempt for _, _, attempt in sorted(self._heap) if attempt in self._waiting]
        self._heap.clear()
        self._waiting.clear()
        return waiting

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _set(self) -> None:
        if self._timer is None:
            self._timer = _make_timer(self._due)
        self._timer.set(self._heap[0][0])

    def _due(self) -> None:
        due: list[Attempt] = []
        now = monotonic()
        while self._heap and self._heap[0][0] <= now:
            attempt = heappop(self._heap)[2]
            if attempt in self._waiting:
                self._waiting.remove(attempt)
                due.append(attempt)
        if due:
            self._begin(due)
        if self._heap:
            self._set()


def _make_timer(due: Callable[[], None]) -> _Timer:
    loop = asyncio.get_running_loop()
    if sys.platform == "linux":
        try:
            return _KernelTimer(loop, due)
        except (OSError, AttributeError, NotImplementedError):  # a sandbox, a C library or a loop without it
            pass
    return _LoopTimer(loop, due)


class _KernelTimer:
    """A timerfd: absolute instants of the monotonic clock, in nanoseconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, due: Callable[[], None]) -> None:
        self._loop = loop
        self._call = due
        self._fd = _create()
        try:
            loop.add_reader(self._fd, self._readable)
        except BaseException:
            os.close(self._fd)
            raise

    def set(self, at: float) -> None:
        _set_time(self._fd, max(1, int(at * 1e9)))  # 0 would stop it

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _readable(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # it was set anew meanwhile
        self._call()


class _LoopTimer:
    """The loop's own: wherever there is no timerfd. It may call early; then it is set once more."""

    def __init__(self, loop: asyncio.AbstractEventLoop, due: Callable[[], None]) -> None:
        self._loop = loop
        self._call = due
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at: float) -> None:
        self.close()
        self._handle = self._loop.call_later(max(0.0, at - monotonic()), self._call)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


if sys.version_info >= (3, 13) and sys.platform == "linux":

    def _create() -> int:
        return os.timerfd_create(CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)

    def _set_time(fd: int, at_ns: int) -> None:
        os.timerfd_settime_ns(fd, flags=os.TFD_TIMER_ABSTIME, initial=at_ns)

else:
    _TFD_TIMER_ABSTIME = 1

    @functools.cache
    def _libc() -> ctypes.CDLL:
        return ctypes.CDLL(None, use_errno=True)

    def _create() -> int:
        fd: int = _libc().timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        return fd

    def _set_time(fd: int, at_ns: int) -> None:
        seconds, rest = divmod(at_ns, 10**9)
        spec = (ctypes.c_long * 4)(0, 0, seconds, rest)  # struct itimerspec: no interval, then the instant
        if _libc().timerfd_settime(fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
