"""What a run of the benchmark does: it says when it began."""

from __future__ import annotations

import time

from tickwheel import Context, task


@task("note-start")
async def note_start(ctx: Context) -> int:
    """Wall clock at the handler's first line, in milliseconds."""
    return time.time_ns() // 1_000_000
