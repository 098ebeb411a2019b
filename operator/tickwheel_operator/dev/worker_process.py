"""One local worker process, as the session sees it: started, loaded, told to go, drained or killed.

`dev.child` is the other side. The socket between them is the process's leash: the kernel closes this end when the
session ends in whatever way, and the child ends itself then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from tickwheel_operator.dev.child import Loaded

__all__ = ["WorkerProcess", "ending"]

_LOG_BYTES = 4 * 1024 * 1024
_KILLED_S = 5.0
"""How long the kernel may take to end a killed process."""


class WorkerProcess:
    """A process that holds handlers. Made by `start`."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._exit: asyncio.Task[int] = asyncio.create_task(process.wait(), name=f"worker process {process.pid}")

    @classmethod
    async def start(
        cls,
        files: Sequence[Path],
        environment: Mapping[str, str],
        log: Path,
        on_exit: Callable[[], None],
    ) -> WorkerProcess:
        """Start it with the handlers of `files`; it takes no work before `go`."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs, _appended(log) as output:
            # A session of its own: Ctrl-C reaches only the dev command, which then drains the workers in order.
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tickwheel_operator.dev.child", str(theirs.fileno()), *map(str, files),
                env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                pass_fds=(theirs.fileno(),), start_new_session=True,
            )  # fmt: skip
        reader, writer = await asyncio.open_connection(sock=ours)
        started = cls(process, reader, writer)
        started._exit.add_done_callback(lambda _: on_exit())
        return started

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.returncode

    async def loaded(self) -> Loaded:
        """What came of the import. A process that ended on the way has a fault that says how."""
        line = b""
        with contextlib.suppress(ConnectionError):
            line = await self._reader.readline()
        if line:
            return msgspec.json.decode(line, type=Loaded)
        return Loaded(fault=f"the worker process {ending(await self._exit)} while it imported the handlers")

    def go(self) -> None:
        """Take work from now on."""
        self._writer.write(b"go\n")

    async def drain(self, seconds: float) -> bool:
        """Let it finish what it runs; kill it after so long. Returns whether it ended in time."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            done, _ = await asyncio.wait({self._exit}, timeout=seconds)
            if not done:
                self.kill()
                await asyncio.wait({self._exit}, timeout=_KILLED_S)
                return False
        self.kill()
        return True

    def kill(self) -> None:
        """End it at once, with what its handlers started; of one that has ended only the socket is left to close."""
        self._writer.close()
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def wait(self) -> int:
        return await asyncio.shield(self._exit)


def _appended(log: Path) -> BinaryIO:
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_suffix(".old"))
    return log.open("ab")


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with code {code}"
