"""Running handlers: in the event loop, in threads or in processes of their own; and counting the slots.

`_link` begins attempts here, has them stopped and killed, and hears of their ends. The invariant: every attempt takes a
slot until its handler has really stopped, and no end is told before.

Asynchronous handlers do not get a task each. A *runner* task takes attempts from a queue and awaits their handlers
one after the other; a handler that never suspends costs no task and no trip through the loop (a no-op dispatch, from
wire to wire, costs the worker 3 us of CPU instead of 6 us with a task each: 200,000 of them, 200 a pull, CPython 3.11,
uvloop). When a handler does suspend, its runner is its own, and the loop starts further runners for the rest of the
queue, twice as many each time. So `current_task`, timeouts and cancellation are what they are in any task. A runner is
not used again after a handler that left changed context variables or a cancellation behind.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from math import inf
from time import monotonic

from ._attempt import Attempt, Report, Stop, outcome
from ._early import EarlyStarts
from ._processes import HandlerProcesses
from ._registry import Handler
from ._threads import HandlerThreads
from .context import Context

__all__ = ["Execution"]

_SLICE_SECONDS = 0.005  # how long runners may hold the loop before others (the pull, the reports) get their turn
_LAST_CHANCE_SECONDS = 0.5  # after so long a handler that was interrupted at the end of its grace is looked at
_LAST_CHANCES = 2  # in so many looks it is still there: the whole process may have stood still for one of them


class Execution:
    """All the handlers of a worker that run now. Lives in one event loop."""

    def __init__(
        self, slots: int, handlers: Iterable[Handler], *, freed: Callable[[], None], stuck: Callable[[Attempt], None]
    ) -> None:
        """`freed` is called whenever a slot may be free, `stuck` for a handler that only the end of this process can
        stop."""
        self.slots = slots
        self.taken = 0
        """Slots in use."""
        self._freed = freed
        self._stuck = stuck
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Attempt] = deque()
        self._early = EarlyStarts(self._begin_early)
        self._threads = HandlerThreads(slots, self._ended, self._return)
        self._processes = HandlerProcesses([h for h in handlers if h.process], self._ended, self._return)
        self._runners: set[asyncio.Task[None]] = set()
        self._starting = False
        self._slice_over = False

    def begin(self, attempts: Sequence[Attempt]) -> None:
        """Run these attempts; each link is told how its own ended."""
        self.taken += len(attempts)
        for attempt in attempts:
            handler = attempt.handler
            if handler.asynchronous:
                self._queue.append(attempt)
            elif handler.process:
                self._processes.submit(attempt)
            else:
                self._threads.submit(attempt)
        self._start(1)

    def begin_at(self, attempt: Attempt, start: float) -> None:
        """Run this attempt from `start` on (seconds of `time.monotonic`); it takes its slot at once."""
        self.taken += 1
        self._early.add(attempt, start)

    def give_back(self) -> None:
        """Return the attempts whose handlers did not begin yet."""
        for attempt in self._early.take():
            self._return(attempt)
        while self._queue:
            self._return(self._queue.popleft())
        self._processes.give_back()

    def ask_to_stop(self, attempt: Attempt) -> None:
        """Pass `attempt.stop` on to the handler; what waits for its instant or for a process ends at once."""
        assert attempt.stop is not None  # noqa: S101 - narrows the type
        if attempt.task is not None:
            attempt.task.cancel(attempt.stop.value)
        elif attempt.handler.process:
            self._processes.ask_to_stop(attempt, attempt.stop)
        if self._early.discard(attempt):
            self._return(attempt)

    def kill(self, attempt: Attempt, now: float) -> None:
        """The grace is over: end the handler's process, or interrupt the handler; when that did not help, it is stuck.
        A handler that the drain stopped is left to the end of this process, which is near."""
        attempt.kill_at = inf
        handler = attempt.handler
        if handler.process:
            self._processes.kill(attempt)
        elif attempt.stop is Stop.DRAIN or attempt.stuck:
            return
        elif attempt.killed:
            attempt.chances += 1
            if attempt.chances < _LAST_CHANCES:
                attempt.kill_at = now + _LAST_CHANCE_SECONDS
            else:
                attempt.stuck = True
                self._stuck(attempt)
        else:
            attempt.kill_at = now + _LAST_CHANCE_SECONDS
            if attempt.task is not None:
                attempt.killed = "it was cancelled once more"
                attempt.task.cancel(attempt.stop.value if attempt.stop is not None else "")
            elif not handler.asynchronous and self._threads.interrupt(attempt):
                attempt.killed = "it was interrupted"

    def kill_processes(self) -> bool:
        """End the processes of all handlers that still run; returns whether there was one."""
        return self._processes.kill_all()

    async def stop(self) -> None:
        """Cancel what still runs and wait for what can be waited for, briefly."""
        self.give_back()
        self._early.close()
        runners = list(self._runners)
        for runner in runners:
            runner.cancel()
        if runners:
            await asyncio.wait(runners, timeout=1)
        self._threads.stop()
        await self._processes.stop()

    def _begin_early(self, attempts: list[Attempt]) -> None:
        """Their instant has come: they go ahead of what may begin whenever it can."""
        for attempt in reversed(attempts):
            if attempt.handler.asynchronous:
                self._queue.appendleft(attempt)
            elif attempt.handler.process:
                self._processes.submit(attempt)
            else:
                self._threads.submit(attempt)
        self._start(1)

    def _start(self, count: int) -> None:
        """Start up to `count` runners, and look after they had their first turn whether any attempt is left."""
        if self._starting or not self._queue:
            return
        for _ in range(min(count, len(self._queue))):
            runner = self._loop.create_task(self._run(), name="tickwheel-runner")
            self._runners.add(runner)
            runner.add_done_callback(self._runner_ended)
        self._starting = True
        self._loop.call_soon(self._start_more, count)

    def _start_more(self, count: int) -> None:
        self._starting = False
        slice_over, self._slice_over = self._slice_over, False
        self._start(1 if slice_over else count * 2)

    def _runner_ended(self, runner: asyncio.Task[None]) -> None:
        self._runners.discard(runner)
        if not runner.cancelled() and (error := runner.exception()) is not None:
            raise error  # a fault of the SDK itself: let the loop's exception handler shout

    async def _run(self) -> None:
        runner = asyncio.current_task()
        assert runner is not None  # noqa: S101 - narrows the type
        queue = self._queue
        before = copy_context()
        slice_end = monotonic() + _SLICE_SECONDS
        try:
            while queue:
                attempt = queue.popleft()
                if attempt.stop is not None:
                    self._return(attempt)
                    continue
                attempt.task = runner
                handler = attempt.handler
                value: object = None
                error: BaseException | None = None
                try:
                    if handler.bare and len(attempt.lease.parameters) == 2:  # `{}`
                        value = await handler.function(Context(attempt))
                    else:
                        value = await handler.function(Context(attempt), **handler.arguments(attempt.lease.parameters))
                except GeneratorExit:
                    raise  # the loop was closed under us
                except BaseException as raised:  # whatever the user's code raises is the outcome
                    error = raised
                attempt.task = None
                if value is None and error is None and attempt.stop is None:
                    self._ended(attempt, attempt.lease.token)
                else:
                    self._ended(attempt, outcome(attempt, value, error))
                if runner.cancelling() or copy_context() != before:
                    return
                if monotonic() > slice_end:
                    self._slice_over = True
                    return
        finally:
            self._start(1)

    def _ended(self, attempt: Attempt, report: Report) -> None:
        """The handler stopped: its slot is free, and its link hears of it."""
        attempt.link.ended(attempt, report)
        self.taken -= 1
        self._freed()

    def _return(self, attempt: Attempt) -> None:
        """The attempt was asked to stop before its handler began."""
        attempt.link.returned(attempt, wanted=attempt.stop is not Stop.FENCED)
        self.taken -= 1
        self._freed()
