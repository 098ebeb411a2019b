"""What the worker pods of these tests run: mounted from a ConfigMap, as examples/cluster does it."""

from __future__ import annotations

import asyncio

from tickwheel import Context, task


@task("quick")
async def quick(ctx: Context) -> None:
    """Over at once."""


@task("slow")
async def slow(ctx: Context, seconds: float = 3.0) -> str:
    """Can be hit while it runs."""
    await asyncio.sleep(seconds)
    return ctx.run
