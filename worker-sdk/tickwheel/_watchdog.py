"""Notices that a handler blocks the event loop, from a thread: then no cancellation, no timeout and no renewal can be
carried out by the loop itself.

`Worker.run` starts it. It ends the process when the loop did not move for some seconds and an attempt has been past its
grace for as long: by then the operator has given the work away, or is about to. C code that holds the interpreter stops
this thread, too; for that case it keeps `_last_resort` wound up, which needs no interpreter.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from math import inf
from time import monotonic

from ._attempt import Attempt
from ._last_resort import LastResort
from ._link import Link

__all__ = ["Watchdog"]

_log = logging.getLogger("tickwheel.worker")

_LOOK_SECONDS = 1.0
_BLOCKED_SECONDS = 1.0  # the loop is late by so much, and in two looks: not merely stopped for a moment (SIGSTOP)
_IDLE_SECONDS = 30.0  # stands for the lease and the grace of attempts that are not known yet
_HELD_UP_SECONDS = 5.0  # beyond the end of the grace, before the last resort is taken


class Watchdog:
    """A thread that looks at the links every second."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, links: Callable[[], Iterable[Link]], end: Callable[[], None]
    ) -> None:
        """`end` ends the process; it is called in the thread."""
        self._loop = loop
        self._links = links
        self._end = end
        self._loop_thread = threading.get_ident()
        self._late: dict[Link, float] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tickwheel-watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        last_resort = LastResort()
        try:
            self._watch(last_resort)
        finally:
            last_resort.stop()

    def _watch(self, last_resort: LastResort) -> None:
        while True:
            now = monotonic()
            held = [attempt for link in self._links() for attempt in list(link.held.attempts.values())]
            known = [at for attempt in held if (at := _over_at(attempt)) < inf]
            over_at = min(known, default=now + _IDLE_SECONDS)
            # Also while nothing is held: what begins before the next look may hold the interpreter at once.
            last_resort.wind_up(max(0.0, over_at - now) + _HELD_UP_SECONDS)
            if self._blocked(now) and over_at < now:
                self._tell(held)
                self._end()
            if self._stopped.wait(_LOOK_SECONDS):
                return

    def _blocked(self, now: float) -> bool:
        """Whether a link has not looked at its clocks since the last look here, and should have."""
        before = self._late
        self._late = {
            link: link.held.look_at
            for link in self._links()
            if link.held.attempts and now > link.held.look_at + _BLOCKED_SECONDS
        }
        return any(before.get(link) == due for link, due in self._late.items())

    def _tell(self, held: list[Attempt]) -> None:
        running = asyncio.current_task(self._loop)
        guilty = next((a for a in held if a.task is not None and a.task is running), None)
        if guilty is None:
            guilty = min(held, key=_over_at)
        frame = sys._current_frames().get(self._loop_thread)
        stack = "" if frame is None else "".join(traceback.format_stack(frame)[-5:])
        _log.critical(
            "handler %s of run %s did not stop within its grace of %d ms, and the event loop is blocked: the worker "
            "ends itself. Asynchronous handlers must await, or be synchronous. The loop is here:\n%s",
            *(guilty.handler.name, guilty.lease.run, guilty.lease.grace_ms, stack),
        )


def _over_at(attempt: Attempt) -> float:
    """When the attempt's grace is over, also if nobody could tell its handler to stop."""
    if attempt.stop is not None:
        return attempt.kill_at
    return min(attempt.timeout_at, attempt.lease_end) + attempt.lease.grace_ms / 1000
