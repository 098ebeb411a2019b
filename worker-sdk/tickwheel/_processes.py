"""Handlers with a process of their own (`@task(..., process=True)`), so that whatever they do can be ended by SIGKILL.

`_execution` owns one set of processes. Each runs one attempt at a time and is used again for the next; one is started
when no other is idle, so there are never more than slots. A process leads its own group, and the whole group is killed
with it. Invariants: an attempt is reported when its handler has returned or its process is dead, and not before; no
process outlives the worker (`_child` sees to that).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from multiprocessing import spawn

import msgspec

from ._attempt import Attempt, Report, Stop, failure
from ._pipe import LENGTH_BYTES, Begin, Ended, Failed, FromChild, MustStop, Plan, Progress, Ready, frame
from ._protocol import ErrorReport
from ._registry import Handler

__all__ = ["HandlerProcesses"]

_log = logging.getLogger("tickwheel.worker")

_START_SECONDS = 120.0  # how long the import of the handlers may take
_LAST_WORDS_SECONDS = 0.2  # how long what a process said before it ended may take to be read
_ENDING_SECONDS = 5.0  # how long the kernel may take to end a killed process
# The interpreter finds the SDK where the worker found it, also if that is no installed package.
_PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from tickwheel._child import main; main()"


class _BrokenError(Exception):
    """The handlers cannot be imported in a process of their own; the message says why."""


class _Child:
    """One process, as the worker sees it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        leash: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """`leash` is the descriptor whose closing kills the process, as the end of this one closes it."""
        self._process = process
        self._leash = leash
        self._reader = reader
        self._writer = writer
        self._decoder = msgspec.json.Decoder(FromChild)
        self.exit = asyncio.create_task(process.wait(), name=f"tickwheel-process {process.pid}")

    @classmethod
    async def start(cls, plan: Plan) -> _Child:
        """Start a process that has imported the handlers. Raises `_BrokenError`."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        pipe, leash = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _PROGRAM, json.dumps(sys.path), str(theirs.fileno()), str(pipe)),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), pipe),
                start_new_session=True,
            )
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()
            os.close(leash)
            raise
        finally:
            theirs.close()
            os.close(pipe)
        child = cls(process, leash, reader, writer)
        try:
            child.send(plan)
            async with asyncio.timeout(_START_SECONDS):
                message = await child._next()
        except BaseException as error:
            child.kill()
            if isinstance(error, TimeoutError):
                raise _BrokenError(f"the import of the handlers took longer than {_START_SECONDS:g} s") from error
            raise
        if not isinstance(message, Ready):
            child.kill()
            fault = message.fault if isinstance(message, Failed) else f"the process {ending(await child.exit)}"
            raise _BrokenError(fault)
        return child

    @property
    def alive(self) -> bool:
        return not self.exit.done()

    async def run(self, attempt: Attempt) -> Report:
        """Run the attempt's handler; returns when it has stopped or the process is dead."""
        self.send(Begin(attempt.lease, 0.0 if attempt.remaining() is None else attempt.timeout_at))
        while True:
            message = await self._next()
            if message is None:
                return _died(attempt, await self.exit)
            if isinstance(message, Progress):
                attempt.progress = (message.fraction, message.message)
            elif isinstance(message, Ended):
                return message.report

    def send(self, message: msgspec.Struct) -> None:
        """Tell the process; one that has ended hears nothing."""
        self._writer.write(frame(message))

    def kill(self) -> None:
        """End the process and what it started, at once; of one that has ended, what it left behind."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._writer.close()
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1

    async def _next(self) -> FromChild | None:
        """What the process says next; none when it has ended. The end of the socket alone would not do: processes that
        the handler forked have it, too."""
        reading = asyncio.create_task(self._read(), name="tickwheel-process-read")
        try:
            await asyncio.wait({reading, self.exit}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await asyncio.wait({reading}, timeout=_LAST_WORDS_SECONDS)
            if reading.done() and (message := reading.result()) is not None:
                return message
            await self.exit
            return None
        finally:
            reading.cancel()

    async def _read(self) -> FromChild | None:
        try:
            length = int.from_bytes(await self._reader.readexactly(LENGTH_BYTES), "big")
            message: FromChild = self._decoder.decode(await self._reader.readexactly(length))
            return message
        except (asyncio.IncompleteReadError, ConnectionError):
            return None


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
        self._idle: list[_Child] = []
        self._running: dict[Attempt, _Child] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._giving_back = False
        if handlers:
            self._spawn(self._warm_up())

    def submit(self, attempt: Attempt) -> None:
        """Run the attempt's handler in a process; `ended` (or `returned`, if it never began) is called in the loop."""
        self._spawn(self._run(attempt))

    def ask_to_stop(self, attempt: Attempt, stop: Stop) -> None:
        """Tell the handler, if it has begun."""
        if (child := self._running.get(attempt)) is not None:
            child.send(MustStop(attempt.lease.token, stop))

    def kill(self, attempt: Attempt) -> None:
        """End the attempt's process, if it has begun; the attempt ends when the process is dead."""
        if (child := self._running.get(attempt)) is not None:
            attempt.killed = "its process was killed"
            child.kill()

    def kill_all(self) -> bool:
        """End the processes of all attempts; returns whether there was one."""
        for attempt in self._running:
            self.kill(attempt)
        return bool(self._running)

    def give_back(self) -> None:
        """Return the attempts whose process is not up yet."""
        self._giving_back = True

    async def stop(self) -> None:
        """End all processes, and wait for their ends, briefly."""
        children = [*self._idle, *self._running.values()]
        self._idle.clear()
        for child in children:
            child.kill()
        for task in self._tasks:
            task.cancel()
        if waiting := {*self._tasks, *(child.exit for child in children)}:
            await asyncio.wait(waiting, timeout=_ENDING_SECONDS)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name="tickwheel-process-attempt")
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # a fault of the SDK itself: let the loop's exception handler shout

    async def _warm_up(self) -> None:
        """Have one process ready for the first attempt; also tells early of handlers that cannot be imported."""
        try:
            self._rest(await _Child.start(self._plan))
        except (_BrokenError, OSError) as error:
            _log.error("handlers with process=True cannot run: %s", error)

    async def _run(self, attempt: Attempt) -> None:
        child: _Child | None = None
        try:
            child = self._take() or await _Child.start(self._plan)
            if attempt.stop is not None or self._giving_back:
                self._rest(child)
                if attempt.stop is Stop.TIMEOUT:  # the import took so long: to be leased again would not help
                    self._ended(attempt, failure(attempt))
                else:
                    self._returned(attempt)
                return
            self._running[attempt] = child
            report = await child.run(attempt)
        except (_BrokenError, OSError) as error:
            message = f"handler {attempt.handler.name} cannot run in a process of its own: {error}"
            report = ErrorReport(token=attempt.lease.token, type="HandlerError", message=message)
        finally:
            self._running.pop(attempt, None)
        if child is not None:
            self._rest(child)
        self._ended(attempt, report)

    def _take(self) -> _Child | None:
        while self._idle:
            if (child := self._idle.pop()).alive:
                return child
            child.kill()
        return None

    def _rest(self, child: _Child) -> None:
        """It waits for the next attempt; one that has ended leaves nothing behind."""
        if child.alive:
            self._idle.append(child)
        else:
            child.kill()


def ending(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"ended by itself with status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    hint = ": out of memory?" if -status == signal.SIGKILL else ""
    return f"was ended by {name}{hint}"


def _died(attempt: Attempt, status: int) -> Report:
    if attempt.stop in (Stop.FENCED, Stop.DRAIN):
        return None
    if attempt.stop is not None:
        report = failure(attempt)
        if not attempt.killed:
            report.message += f", and its process {ending(status)}"
        return report
    message = f"the process of handler {attempt.handler.name} {ending(status)}"
    return ErrorReport(token=attempt.lease.token, type="ProcessDied", message=message)


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
