"""Keeps a loop of the operator's process alive that is not worth the process.

Faults at single objects are caught where they happen (`objectfaults`). What gets past that would end the loop, the
process, and the next one like it; yet a leader fires and leases without a projection. So such a loop begins again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

__all__ = ["kept_alive"]

_log = logging.getLogger(__name__)
_LONGEST_PAUSE_S = 60.0


async def kept_alive(name: str, run: Callable[[], Awaitable[None]], *, pause_s: float = 1.0) -> None:
    """Run until it returns or is cancelled. Where it raises, run it again after a pause that doubles up to a minute,
    and is the first one again after a run of a minute."""
    loop = asyncio.get_running_loop()
    pause = pause_s
    while True:
        began = loop.time()
        try:
            await run()
            return
        except Exception:
            if loop.time() - began >= _LONGEST_PAUSE_S:
                pause = pause_s
            _log.exception("%s broke down, and begins again in %.0f s", name, pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_S)
