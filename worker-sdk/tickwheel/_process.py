"""One process of handlers, as the worker sees it: its start, what it says, its end.

`_processes` has some of these; `_child` is what runs in one. A process leads its own group, and the whole group ends
with it. Invariants: an attempt's report is taken when its handler has returned or the process is dead, and not before;
a process that was killed is not alive, also while its end is still on its way; nothing is killed by a number that may
be another's by now.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys

import msgspec

from ._attempt import Attempt, Report, Stop, failure
from ._pipe import LENGTH_BYTES, Begin, Ended, Failed, FromChild, Plan, Progress, Ready, frame
from ._protocol import ErrorReport

__all__ = ["BrokenError", "HandlerProcess"]

_START_SECONDS = 120.0  # how long the import of the handlers may take
_LAST_WORDS_SECONDS = 0.2  # how long what a process said before it ended may take to be read
_GROUP_SECONDS = 1.0  # how long the kernel may take to end a killed group
# The interpreter finds the SDK where the worker found it, also if that is no installed package.
_PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from tickwheel._child import main; main()"


class BrokenError(Exception):
    """The handlers cannot be imported in a process of their own; the message says why."""


class HandlerProcess:
    """Lives in the event loop that started it."""

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
        self.exit.add_done_callback(self._ended)

    @classmethod
    async def start(cls, plan: Plan) -> HandlerProcess:
        """Start a process that has imported the handlers. Raises `BrokenError` or `OSError`."""
        # Only texts count to the import, and only they are JSON; some put a `Path` there.
        path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        pipe, leash = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _PROGRAM, path, str(theirs.fileno()), str(pipe)),
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
        started = cls(process, leash, reader, writer)
        try:
            started.send(plan)
            async with asyncio.timeout(_START_SECONDS):
                message = await started._next()
        except BaseException as error:
            started.kill()
            if isinstance(error, TimeoutError):
                raise BrokenError(f"the import of the handlers took longer than {_START_SECONDS:g} s") from error
            raise
        if not isinstance(message, Ready) or not started.alive:
            started.kill()
            fault = message.fault if isinstance(message, Failed) else f"the process {_ending(await started.exit)}"
            raise BrokenError(fault)
        return started

    @property
    def alive(self) -> bool:
        """Whether it can run an attempt: it was not killed and has not ended."""
        return self._leash >= 0 and not self.exit.done()

    def begin(self, attempt: Attempt) -> None:
        """Have it run the attempt's handler; `report` tells what becomes of it."""
        self.send(Begin(attempt.lease, 0.0 if attempt.remaining() is None else attempt.timeout_at))

    async def report(self, attempt: Attempt) -> Report:
        """What to report of the attempt that it runs; returns when its handler has stopped or the process is dead."""
        while True:
            message = await self._next()
            if message is None:
                return _died(attempt, await self.exit)
            if isinstance(message, Ended):
                return message.report
            # What the listening thread was about to tell of the attempt before comes after that one's end.
            if isinstance(message, Progress) and message.token == attempt.lease.token:
                attempt.progress = (message.fraction, message.message)

    def send(self, message: msgspec.Struct) -> None:
        """Tell the process; one that has ended hears nothing."""
        self._writer.write(frame(message))

    def kill(self) -> None:
        """End the process and what it started, at once."""
        if self._leash < 0:
            return
        if not self.exit.done():
            self._kill_group()
        self._writer.close()
        os.close(self._leash)
        self._leash = -1

    def _ended(self, _: object) -> None:
        """However it ended, nothing that it started is left behind. Now, since its number is given to nobody while one
        of its group lives, but some time later to another. What it said last may be unread: the socket stays open."""
        self._kill_group()
        self._reap_later()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _reap_later(self) -> None:
        asyncio.get_running_loop().call_later(_GROUP_SECONDS, self._reap)

    def _reap(self) -> None:
        """The first process of a container inherits what the handler had started, and nobody else would reap it."""
        with contextlib.suppress(ChildProcessError):  # there is none, or none is left
            while os.waitpid(-self._process.pid, os.WNOHANG)[0]:
                pass
            self._reap_later()

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


def _ending(status: int) -> str:
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
            report.message += f", and its process {_ending(status)}"
        return report
    message = f"the process of handler {attempt.handler.name} {_ending(status)}"
    return ErrorReport(token=attempt.lease.token, type="ProcessDied", message=message)
