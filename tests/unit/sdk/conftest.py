"""A fake operator per test, and workers that are drained when the test ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.unit.sdk.fake_operator import FakeOperator

from tickwheel import Worker

Start = Callable[..., Awaitable[Worker]]


@pytest.fixture
async def operator() -> AsyncIterator[FakeOperator]:
    fake = FakeOperator()
    await fake.start(replicas=2)
    yield fake
    await fake.stop()


@pytest.fixture
async def start(operator: FakeOperator) -> AsyncIterator[Start]:
    """Starts a worker in this process with the given handlers (by name) and settings."""
    serving: list[tuple[Worker, asyncio.Task[None]]] = []

    async def start_worker(handlers: dict[str, Callable[..., Any]], **settings: Any) -> Worker:
        settings = {"endpoint": operator.url, "name": "w", "drain_timeout": 1, "pull_wait": 5, **settings}
        worker = Worker(handlers=handlers, **settings)
        serving.append((worker, asyncio.create_task(worker.serve())))
        return worker

    yield start_worker
    for worker, task in serving:
        worker.drain()
        done, _ = await asyncio.wait([task], timeout=15)
        if not done:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            raise AssertionError("the worker did not drain")
        await task
