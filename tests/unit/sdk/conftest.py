"""A fake operator per test, and workers that are drained when the test ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.sdk.fake_operator import FakeOperator

import tickwheel
from tickwheel import Worker
from tickwheel._client import OperatorClient
from tickwheel._protocol import PullAnswer, PullRequest

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
        done, _ = await asyncio.wait([task], timeout=60)
        if not done:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            raise AssertionError("the worker did not drain")
        await task


@pytest.fixture
def patient_pulls(monkeypatch):
    """A pull is not given up by its client, however long its answer is overdue."""
    pull = OperatorClient.pull

    async def patient(client: OperatorClient, url: str, request: PullRequest, *, timeout: float) -> PullAnswer:
        return await pull(client, url, request, timeout=600)

    monkeypatch.setattr(OperatorClient, "pull", patient)


@pytest.fixture
async def process(operator, tmp_path, handlers_file):
    """`python -m tickwheel handlers.py`, as a process of its own, with what the test module's `handlers_file` says."""
    (tmp_path / "handlers.py").write_text(handlers_file)
    started: list[asyncio.subprocess.Process] = []

    async def start_process(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
        sdk = str(Path(tickwheel.__file__).parents[1])
        env = {**os.environ, "TICKWHEEL_ENDPOINT": operator.url, "PYTHONPATH": sdk, **environment}
        made = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tickwheel", *(arguments or ("handlers.py",))),
            cwd=tmp_path,
            env=env,
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(made)
        return made

    yield start_process
    for made in started:
        with contextlib.suppress(ProcessLookupError):
            made.kill()
        await made.communicate()


async def left(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """How the process ended, and what it said."""
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, errors.decode()
