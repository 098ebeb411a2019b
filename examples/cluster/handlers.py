"""The handlers of this example. The ConfigMap in 10-handlers.yaml is this file; a test keeps them the same."""

from __future__ import annotations

from tickwheel import Context, task


@task("hello")
async def hello(ctx: Context, name: str = "world") -> str:
    """The smallest useful handler: one parameter, and the result is shown with the run."""
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
    """Fails on its first attempt and succeeds on its second."""
    if ctx.attempt == 1:
        raise ConnectionError("the shop did not answer (it will on the next attempt)")
    return f"succeeded on attempt {ctx.attempt}"
