"""The worker of `latency.py`: it notes how far from its instant each handler begins. The SDK as users have it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from tickwheel import Context, Worker, task

_starts: list[tuple[str, int, int, int]] = []
"""Task, scheduled instant (ms), begin (us), of the wall clock; and the attempt's token."""


@task("timed")
async def timed(ctx: Context) -> None:
    """Nothing, at a known instant."""
    began_us = time.time_ns() // 1_000
    _starts.append((ctx.task, round(ctx.scheduled_time.timestamp() * 1000), began_us, ctx.token))


if __name__ == "__main__":
    try:
        Worker().run()
    finally:
        Path(os.environ["BENCH_RECORD"]).write_text(json.dumps(_starts))
