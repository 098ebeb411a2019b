"""Tasks of which the ledger knows and the catalog does not, when a term begins: gone, or not heard of yet?

A watch may be late, by seconds after a broken connection. A leader that took a task for deleted since it had not heard
of it would cancel its runs, forget its watermark, and fire its instants again when the watch tells. So it asks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection
from itertools import islice

from tickwheel_operator.engine.messages import TaskRemoved
from tickwheel_operator.runtime.partition import PartitionHost, TermEnded

__all__ = ["Missing", "remove_deleted"]

Missing = Callable[[Collection[str]], Awaitable[Collection[str]]]
"""Which of these uids of tasks the API server certainly has no more; none, where it does not say."""

_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_TOGETHER = 200
"""The end of a task ends its runs: others get their turn between."""


async def remove_deleted(host: PartitionHost, missing: Missing) -> None:
    """Remove the tasks that no longer exist; return when each is either heard of or removed."""
    unheard = host.engine.scheduler.unheard
    pause_s = _PAUSE_S
    with contextlib.suppress(TermEnded):
        while unheard:
            gone = iter(await missing(frozenset(unheard)))
            while uids := list(islice(gone, _TOGETHER)):
                host.post_all([TaskRemoved(uid=uid) for uid in uids])
                await asyncio.sleep(0)
            if unheard:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
