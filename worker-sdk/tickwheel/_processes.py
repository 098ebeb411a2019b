"""Handlers with a process of their own (`@task(..., process=True)`), so that whatever they do can be ended by SIGKILL.

`_execution` owns one set of processes. Each runs one attempt at a time and is used again for the next. An attempt that
finds none idle waits for the first that is free, and one more is started unless it is on its way already: so there are
never more than slots. Invariants: whatever fails, an attempt that was submitted ends or is returned; one that waits can
be told to stop at once; no process outlives the worker (`_child` sees to that).
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from multiprocessing import spawn

from ._attempt import Attempt, Report, Stop, failure
from ._pipe import MustStop, Plan
from ._process import HandlerProcess
from ._protocol import ErrorReport
from ._registry import Handler

__all__ = ["HandlerProcesses"]

_log = logging.getLogger("tickwheel.worker")

_ENDING_SECONDS = 5.0  # how long the kernel may take to end a killed process


class HandlerProcesses:
    """The processes of a worker. All methods are called in the event loop."""

    def __init__(
        self,
        handlers: Sequence[Handler],
        ended: Callable[[Attempt, Report], None],
        returned: Callable[[Attempt], None],
    ) -> None:
        self._ended = ended
        self._returned = returned
        self._plan = _plan(handlers)
        self._idle: list[HandlerProcess] = []
        self._starting = 0
        self._waiting: dict[Attempt, None] = {}
        """Attempts without a process yet, the oldest first."""
        self._running: dict[Attempt, HandlerProcess] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        if handlers:  # one is ready for the first attempt; also tells early of handlers that cannot be imported
            self._start()

    def submit(self, attempt: Attempt) -> None:
        """Run the attempt's handler in a process; `ended` (or `returned`, if it never began) is called in the loop."""
        while self._idle:
            if (process := self._idle.pop()).alive:
                self._begin(attempt, process)
                return
            process.kill()
        self._waiting[attempt] = None
        if self._starting < len(self._waiting):
            self._start()

    def ask_to_stop(self, attempt: Attempt, stop: Stop) -> None:
        """Tell the handler; an attempt that waits for a process ends at once."""
        if (process := self._running.get(attempt)) is not None:
            process.send(MustStop(attempt.lease.token, stop))
        elif attempt in self._waiting:
            del self._waiting[attempt]
            if stop is Stop.TIMEOUT:  # the import took so long: to be leased again would not help
                self._ended(attempt, failure(attempt))
            else:
                self._returned(attempt)

    def kill(self, attempt: Attempt) -> None:
        """End the attempt's process, if it has begun; the attempt ends when the process is dead."""
        if (process := self._running.get(attempt)) is not None:
            attempt.killed = "its process was killed"
            process.kill()

    def kill_all(self) -> bool:
        """End the processes of all attempts; returns whether there was one."""
        for attempt in self._running:
            self.kill(attempt)
        return bool(self._running)

    def give_back(self) -> None:
        """Return the attempts that wait for a process."""
        waiting, self._waiting = self._waiting, {}
        for attempt in waiting:
            self._returned(attempt)

    async def stop(self) -> None:
        """End all processes, and wait for their ends, briefly."""
        processes = [*self._idle, *self._running.values()]
        self._idle.clear()
        for process in processes:
            process.kill()
        for task in self._tasks:
            task.cancel()
        if ending := {*self._tasks, *(process.exit for process in processes)}:
            await asyncio.wait(ending, timeout=_ENDING_SECONDS)

    def _start(self) -> None:
        self._starting += 1
        self._spawn(self._start_one())

    async def _start_one(self) -> None:
        try:
            process = await HandlerProcess.start(self._plan)
        except Exception as error:  # whatever it was, those that wait for it must not wait for ever
            self._starting -= 1
            _log.error("handlers with process=True cannot run: %s", error)
            while len(self._waiting) > self._starting:
                attempt = next(iter(self._waiting))
                del self._waiting[attempt]
                self._ended(attempt, _cannot_run(attempt, error))
        else:
            self._starting -= 1
            self._rest(process)

    def _begin(self, attempt: Attempt, process: HandlerProcess) -> None:
        self._running[attempt] = process
        process.begin(attempt)  # now, so that it hears of a stop after it
        self._spawn(self._run(attempt, process))

    async def _run(self, attempt: Attempt, process: HandlerProcess) -> None:
        try:
            report = await process.report(attempt)
        except Exception as error:  # whatever it was, the attempt must end and free its slot
            process.kill()
            report = _cannot_run(attempt, error)
        finally:
            del self._running[attempt]
        self._rest(process)
        self._ended(attempt, report)

    def _rest(self, process: HandlerProcess) -> None:
        """It takes the next attempt, or waits for one."""
        if not process.alive:
            process.kill()
        elif self._waiting:
            attempt = next(iter(self._waiting))
            del self._waiting[attempt]
            self._begin(attempt, process)
        else:
            self._idle.append(process)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name="tickwheel-process-attempt")
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # a fault of the SDK itself: let the loop's exception handler shout


def _cannot_run(attempt: Attempt, error: Exception) -> ErrorReport:
    message = f"handler {attempt.handler.name} cannot run in a process of its own: {error}"
    return ErrorReport(token=attempt.lease.token, type="HandlerError", message=message)


def _plan(handlers: Sequence[Handler]) -> Plan:
    """How a new interpreter comes by these handlers: it imports the modules that registered them."""
    names = dict.fromkeys(name for handler in handlers for name in handler.modules)
    modules = [(name, getattr(sys.modules.get(name), "__file__", None) or "") for name in names]
    main = spawn.get_preparation_data("tickwheel") if "__main__" in names else {}
    keep = ("sys_argv", "dir", "orig_dir", "init_main_from_name", "init_main_from_path")
    return Plan(
        handlers=[handler.name for handler in handlers],
        modules=[module for module in modules if module[0] != "__main__"],
        main={key: main[key] for key in keep if key in main},
        log_level=logging.getLogger().level,
    )
