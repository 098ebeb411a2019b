"""Checkpoints, written beside the appends: when one is due, and the one that is on its way.

The host of a partition asks `due` with every batch, and hands over the state as it is after that batch. A checkpoint is
never waited for, and the log can do without: one that fails is tried again later, and only a rival ends the term.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tickwheel_operator.engine.model.snapshot import Snapshot
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.protocol import Deposed, LedgerError

__all__ = ["Checkpoints"]

_log = logging.getLogger(__name__)

_AGAIN_S = 60.0
"""After one that failed, and between those that are to make room: each writes the whole state."""


class Checkpoints:
    """Of one partition, for one term."""

    def __init__(self, ledger: Ledger, on_deposed: Callable[[Deposed], None]) -> None:
        self._ledger = ledger
        self._on_deposed = on_deposed
        self._writing: asyncio.Task[None] | None = None
        self._not_before = 0.0
        """By the loop's clock; after a failure."""
        self._relief_from = 0.0

    def due(self, now: float, *, relief: bool) -> bool:
        """Whether one should begin now, by the loop's clock. `relief`: the store is nearly full, and a checkpoint lets
        go of what it can."""
        if self._writing is not None or now < self._not_before:
            return False
        return self._ledger.checkpoint_due or (relief and now >= self._relief_from and self._ledger.tail_bytes > 0)

    def begin(self, snapshot: Snapshot) -> None:
        """Write it: the state after all that the ledger has now."""
        writing = self._write(snapshot, self._ledger.last_sequence)
        self._writing = asyncio.create_task(writing, name=f"checkpoint in epoch {self._ledger.epoch}")

    async def stop(self) -> None:
        """Give up what is on its way; the next leader replays without it."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing])

    async def _write(self, snapshot: Snapshot, stands_for: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            await self._ledger.checkpoint(snapshot, stands_for=stands_for)
        except Deposed as error:
            self._on_deposed(error)
        except LedgerError as error:
            self._not_before = loop.time() + _AGAIN_S
            _log.warning("no checkpoint was written; the next is tried in %.0f s: %s", _AGAIN_S, error)
        finally:
            snapshot.end()
            self._writing = None
            self._relief_from = loop.time() + _AGAIN_S
