"""One term after the other of a dev session's engine: what the engine fails at costs one task, not the session.

As in a cluster (`runtime.leadership`) an exception of the engine ends its term, and the next one leaves alone the task
that it was deciding for. Without rivals there is no election: the next term begins on the same ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from tickwheel_operator.dev.folder import Folder
from tickwheel_operator.engine.core import Engine
from tickwheel_operator.engine.messages import Command, TaskRemoved
from tickwheel_operator.ledger.protocol import LedgerError
from tickwheel_operator.runtime.partition import PartitionHost, TermEnded

__all__ = ["Terms"]

_log = logging.getLogger(__name__)
_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0


class Terms:
    """The host that leads now, and the next one after it."""

    def __init__(self, new_host: Callable[[], PartitionHost], folder: Folder, tell: Callable[[str], None]) -> None:
        self._new_host = new_host
        self._folder = folder
        self._tell = tell
        self._stopping = asyncio.Event()
        self.host = new_host()

    @property
    def engine(self) -> Engine:
        return self.host.engine

    async def take_over(self) -> None:
        """Read the ledger and begin the first term. Raises the ledger's errors."""
        await self.host.take_over(self._folder.snapshot)
        # What is not in the folder is gone: nothing tells of it late.
        self.host.post_all([TaskRemoved(uid=uid) for uid in self.engine.scheduler.unheard])

    def post(self, command: Command) -> None:
        """Carry out a command. Between two terms there is nobody to do so: the next one asks for everything."""
        with contextlib.suppress(TermEnded):
            self.host.post(command)

    def stop(self) -> None:
        """Append what was decided; then `run` returns."""
        self._stopping.set()
        self.host.stop()

    async def run(self) -> None:
        """Lead until `stop()`. Raises the ledger's errors."""
        pause_s = _PAUSE_S
        while True:
            try:
                await self.host.run()
                return
            except LedgerError:
                raise
            except Exception as raised:
                self._failed(self.host.broken or raised)
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause_s)
                if self._stopping.is_set():
                    return
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                self.host = self._new_host()
                try:
                    await self.take_over()
                    break
                except LedgerError:
                    raise
                except Exception as raised:
                    self._failed(self.host.broken or raised)

    def _failed(self, error: Exception) -> None:
        uids = self.host.engine.culprits(error)
        for uid in uids:
            self._folder.isolate(uid, error)
        if not uids:
            _log.error("the engine failed, at no task that is known; it begins again", exc_info=error)
            self._tell(f"the engine failed and begins again: {error!r}; dev.log has the traceback, please report it")
