"""Handlers that are hard to stop, each in its own way; what they do they write down as `soak.handlers` does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

from tickwheel import Context, task

_FOLDER = Path(os.environ["TICKWHEEL_TEST_RECORDS"])


@task("patient")
async def patient(ctx: Context, linger: float = 0.0) -> None:
    """Stops when it is asked, after a while."""
    _write("begin", ctx)
    try:
        await asyncio.sleep(60)
    finally:
        if linger:
            time.sleep(linger)
        _write("end", ctx)


@task("endless")
def endless(ctx: Context) -> None:
    """A loop that nobody thought of cancelling."""
    _write("begin", ctx)
    try:
        while True:
            pass
    finally:
        _write("end", ctx)


@task("deaf", process=True)
def deaf(ctx: Context) -> None:
    """Ignores every signal that can be ignored."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _write("begin", ctx)
    while True:
        time.sleep(1)


@task("swallowing")
async def swallowing(ctx: Context) -> None:
    """Goes on whatever happens."""
    _write("begin", ctx)
    while True:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            continue


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
    with (_FOLDER / f"{os.getpid()}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
