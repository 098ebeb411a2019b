"""Handlers that write down what they did: the workers' own account, apart from the operator's.

One line of JSON when an attempt begins and one when it ends, in a file of the process, each by one O_APPEND write: of
a process that is killed only the last line may be half there. Run by workers: `python -m tickwheel handlers.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

from tickwheel import Context, task

_FILE = os.open(
    Path(os.environ["TICKWHEEL_TEST_RECORDS"]) / f"{os.environ['TICKWHEEL_WORKER_NAME']}-{os.getpid()}.jsonl",
    os.O_WRONLY | os.O_APPEND | os.O_CREAT,
    0o600,
)


@task("quick")
async def quick(ctx: Context) -> None:
    """An attempt that is over at once."""
    _write("begin", ctx)
    _write("end", ctx)


@task("slow")
async def slow(ctx: Context, seconds: float = 0.5) -> None:
    """An attempt that can be hit while it runs."""
    _write("begin", ctx)
    await asyncio.sleep(seconds)
    _write("end", ctx)


def _write(what: str, ctx: Context) -> None:
    line = {
        "what": what,
        "run": ctx.run,
        "scheduled_ms": round(ctx.scheduled_time.timestamp() * 1000),
        "attempt": ctx.attempt,
        "token": ctx.token,
        "wall_ms": time.time_ns() // 1_000_000,
        "monotonic_s": time.monotonic(),
    }
    os.write(_FILE, json.dumps(line).encode() + b"\n")
