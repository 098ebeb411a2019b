"""What runs in the process of a handler: it imports the handlers, then runs one attempt after the other.

`_processes` starts it. The handler runs in the main thread; a second one listens to the worker: it passes on that the
handler must stop, and tells its progress. Invariant: this process, with all that its handlers started, ends when the
worker's does, however that ended. The listening thread sees to it when the socket ends; on Linux the kernel does,
through a pipe that only the worker can write to: its end sends SIGKILL to the whole group, also while C code holds the
interpreter.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import fcntl
import importlib
import importlib.util
import logging
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Mapping
from multiprocessing import spawn
from pathlib import Path
from queue import SimpleQueue

import msgspec

from ._attempt import Attempt, Report, outcome
from ._pipe import LENGTH_BYTES, Begin, Ended, Failed, Plan, Progress, Ready, ToChild, frame
from ._registry import Handler, registry
from ._threads import call
from .context import Context
from .errors import HandlerError

__all__ = ["main"]

_PROGRESS_SECONDS = 0.5


def main() -> None:
    """The process; its arguments are the descriptors of the socket and of the pipe."""
    sock = socket.socket(fileno=int(sys.argv.pop(1)))
    sock.set_inheritable(False)
    _end_with(int(sys.argv.pop(1)))
    plan = msgspec.json.decode(_read(sock), type=Plan)
    logging.basicConfig(level=plan.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        handlers = _import(plan)
    except BaseException as error:  # whatever the import of the user's modules raises
        traceback.print_exc()
        sock.sendall(frame(Failed(f"{type(error).__name__}: {error}")))
        sys.exit(1)
    _Process(sock, handlers).run()


class _Process:
    """The attempt that runs now, and the two threads' sides of it."""

    def __init__(self, sock: socket.socket, handlers: Mapping[str, Handler]) -> None:
        self._sock = sock
        self._handlers = handlers
        self._sending = threading.Lock()
        self._begun: SimpleQueue[Attempt] = SimpleQueue()
        self._attempt: Attempt | None = None
        self._runner: asyncio.Runner | None = None

    def run(self) -> None:
        """Never returns: the listening thread ends the process."""
        self._send(Ready())
        threading.Thread(target=self._listen, name="tickwheel-listen", daemon=True).start()
        while True:
            attempt = self._begun.get()
            if attempt.handler.asynchronous:
                report = self._asyncio().run(_awaited(attempt), context=contextvars.copy_context())
            else:
                report = contextvars.copy_context().run(call, attempt)
            self._attempt = None
            self._tell_progress(attempt)
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            self._send(Ended.of(report))

    def ended(self, attempt: Attempt, report: Report) -> None:
        """The worker's attempts are told of their end; these are not."""

    def returned(self, attempt: Attempt, *, wanted: bool) -> None:
        """As `ended`."""

    def _asyncio(self) -> asyncio.Runner:
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner

    def _listen(self) -> None:
        decoder = msgspec.json.Decoder(ToChild)
        try:
            while True:
                if self._attempt is not None:
                    readable = _readable(self._sock.fileno(), _PROGRESS_SECONDS)
                    self._tell_progress(self._attempt)
                    if not readable:
                        continue
                message = decoder.decode(_read(self._sock))
                if isinstance(message, Begin):
                    attempt = self._made(message)
                    self._attempt = attempt
                    self._begun.put(attempt)
                elif (running := self._attempt) is not None and running.lease.token == message.token:
                    running.stop = message.reason
                    if (task := running.task) is not None:
                        task.get_loop().call_soon_threadsafe(task.cancel, message.reason.value)
        except EOFError:
            pass
        except BaseException:
            traceback.print_exc()
        finally:
            os.killpg(0, signal.SIGKILL)

    def _made(self, begin: Begin) -> Attempt:
        attempt = Attempt(begin.lease, self._handlers[begin.lease.handler], self, 0.0)
        if begin.timeout_at:
            attempt.timeout_at = begin.timeout_at
        return attempt

    def _tell_progress(self, attempt: Attempt | None) -> None:
        latest = None if attempt is None else attempt.progress
        if attempt is not None and latest is not None and latest is not attempt.progress_sent:
            attempt.progress_sent = latest
            self._send(Progress(attempt.lease.token, *latest))

    def _send(self, message: msgspec.Struct) -> None:
        data = frame(message)
        with self._sending:
            self._sock.sendall(data)


async def _awaited(attempt: Attempt) -> Report:
    handler, value = attempt.handler, None
    error: BaseException | None = None
    attempt.task = asyncio.current_task()
    try:
        if attempt.stop is not None:  # it came before the task was there to be cancelled
            raise asyncio.CancelledError(attempt.stop.value)
        value = await handler.function(Context(attempt), **handler.arguments(attempt.lease.parameters))
    except BaseException as raised:  # whatever the user's code raises is the attempt's outcome
        error = raised
    attempt.task = None
    return outcome(attempt, value, error)


def _import(plan: Plan) -> dict[str, Handler]:
    """The handlers of the plan, registered by the modules that it names."""
    registry.in_child = True
    spawn.prepare(plan.main)
    for name, file in plan.modules:
        _load(name, file)
    known = {name: Handler(name, function) for name, function in registry.functions().items() if name in plan.handlers}
    if missing := ", ".join(sorted(set(plan.handlers) - known.keys())):
        names = ", ".join(name for name, _ in plan.modules) or "the main module"
        raise HandlerError(
            f"the import of {names} does not register {missing}: apply @task at the top level of a module, outside of "
            "`if __name__ == '__main__'`"
        )
    return known


def _load(name: str, file: str) -> None:
    """Import a module by name; one that `python -m tickwheel FILE` loaded from elsewhere, by its file."""
    found = None
    with contextlib.suppress(ImportError, ValueError):
        found = importlib.util.find_spec(name)
    if not file or (found is not None and found.origin is not None and Path(found.origin) == Path(file)):
        importlib.import_module(name)
    else:
        from .__main__ import load  # not above: it brings the whole worker along

        load(file)


def _read(sock: socket.socket) -> bytes:
    """One message. Raises `EOFError` when the worker is gone."""
    return _exactly(sock, int.from_bytes(_exactly(sock, LENGTH_BYTES), "big"))


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _end_with(pipe: int) -> None:
    """Have the kernel kill this process and its group when the other end of the pipe is closed."""
    os.set_inheritable(pipe, False)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox that lacks it: the listening thread is left
            fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
            fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(pipe, fcntl.F_SETFL, os.O_ASYNC)
    if _readable(pipe, 0):
        os._exit(1)  # the worker ended before that


def _readable(descriptor: int, seconds: float) -> bool:
    """By `poll`: `select` takes no descriptor above 1,023, and a busy worker hands down such."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
