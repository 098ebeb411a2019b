"""A loop that breaks down begins again, and does not end the process."""

from __future__ import annotations

import asyncio

import pytest

from tickwheel_operator.runtime.supervision import kept_alive


async def test_a_loop_that_raises_begins_again_until_it_returns(caplog: pytest.LogCaptureFixture) -> None:
    runs = 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        async with asyncio.TaskGroup():
            if runs < 3:
                raise RuntimeError(f"run {runs}")

    await kept_alive("the projection", run, pause_s=0.001)
    assert runs == 3
    assert caplog.text.count("the projection broke down") == 2
    assert "RuntimeError: run 1" in caplog.text


async def test_a_loop_that_is_cancelled_ends() -> None:
    running = asyncio.create_task(kept_alive("the pools", asyncio.Event().wait))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
