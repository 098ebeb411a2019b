"""The handlers of the quickstart: what tasks name in `spec.handler`, written as plain functions.

Run them with `tickwheel dev examples/quickstart`, or on their own with `python -m tickwheel handlers.py`.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from pydantic import Field

from tickwheel import Context, task

Pixels = Annotated[int, Field(gt=0, le=10_000)]


@task("hello")
async def hello(ctx: Context, name: str = "world") -> str:
    """The smallest useful handler: asynchronous, one parameter, and the result is shown with the run."""
    ctx.logger.info("hello, %s! (scheduled for %s)", name, ctx.scheduled_time.isoformat())
    return f"hello, {name}"


@task("report")
def report(ctx: Context, rows: int = 200_000) -> dict[str, int]:
    """A synchronous handler: it computes in a thread, says how far it is, and stops when it is asked to."""
    total = 0
    for row in range(rows):
        if row % 10_000 == 0:
            ctx.raise_if_cancelled()
            ctx.progress(row / rows, f"{row:,} of {rows:,} rows")
        total += row * row % 97
    return {"rows": rows, "checksum": total}


@task("flaky")
async def flaky(ctx: Context) -> str:
    """Fails on its first attempt and succeeds on its second: the table shows it as TRIES."""
    if ctx.attempt == 1:
        raise ConnectionError("the shop did not answer (it will on the next attempt)")
    return f"succeeded on attempt {ctx.attempt}"


@task("resize-images")
async def resize_images(
    ctx: Context, images: list[str], width: Pixels, height: Pixels, quality: Literal["draft", "fine"] = "fine"
) -> list[str]:
    """Typed parameters: pydantic checks them before this is called, and a wrong one fails with its name and place."""
    done = []
    for number, image in enumerate(images, start=1):
        await asyncio.sleep(0.1)  # a real one would resize here
        done.append(f"{image} ({width}x{height}, {quality})")
        ctx.progress(number / len(images), f"{image} is done")
    return done
