"""The port that shows that a worker is registered: it refuses connections until the gateway has accepted a pull."""

from __future__ import annotations

import asyncio
import signal
import socket
import textwrap
from contextlib import closing

import pytest
from tests.unit.sdk.conftest import left

from tickwheel import Worker

HANDLERS = textwrap.dedent(
    """
    from tickwheel import task

    @task("h")
    async def h(ctx): ...
    """
)


@pytest.fixture
def handlers_file() -> str:
    return HANDLERS


@pytest.fixture
def port() -> int:
    """One that nobody has, outside of the range that connections are given theirs from."""
    for number in range(20_000, 21_000):
        with closing(socket.socket()) as tried:
            try:
                tried.bind(("", number))
            except OSError:
                continue
            return number
    raise AssertionError("no port is free")


async def accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def until_accepted(port: int) -> None:
    async with asyncio.timeout(60):
        while not await accepts(port):
            await asyncio.sleep(0.02)


async def test_a_worker_is_ready_once_the_gateway_accepts_it_and_stays_so_while_the_operator_is_away(
    operator, process, port
):
    operator.unavailable = 4
    made = await process(TICKWHEEL_READY_PORT=str(port))
    await operator.until(lambda: operator.unavailable < 4)
    assert not await accepts(port)
    await until_accepted(port)
    operator.hung = {0, 1}
    operator.unavailable = 10_000
    operator.move_leader()
    for _ in range(30):  # more than one that waits in the socket's queue
        assert await accepts(port)
    operator.hung, operator.unavailable = set(), 0
    await operator.until(lambda: operator.pulls[-1].epoch == operator.epoch)
    made.send_signal(signal.SIGTERM)
    code, errors = await left(made)
    assert code == 0, errors


async def test_a_worker_that_the_gateway_does_not_let_in_is_not_ready(operator, process, port):
    operator.refuse_pulls = True
    made = await process(TICKWHEEL_READY_PORT=str(port))
    await operator.until(lambda: len(operator.pulls) > 3)
    assert not await accepts(port)
    made.kill()


async def test_the_first_pull_does_not_wait_for_work(operator, start, port):
    await start({"h": lambda ctx: None}, ready_port=port, pull_wait=30)
    await until_accepted(port)
    await operator.until(lambda: len(operator.pulls) > 1)
    assert [pull.wait_ms for pull in operator.pulls] == [0, 30_000]


async def test_a_port_that_another_program_has_is_named_with_what_to_set(process, port):
    with closing(socket.create_server(("", port))):
        code, errors = await left(await process(TICKWHEEL_READY_PORT=str(port)))
    assert code == 2
    assert f"TICKWHEEL_READY_PORT is {port}" in errors
    assert "choose another port" in errors
    assert "Traceback" not in errors


async def test_a_worker_that_has_left_gives_its_port_back(operator, port):
    for _ in range(2):
        worker = Worker(endpoint=operator.url, name="w", handlers={"h": lambda ctx: None}, ready_port=port)
        serving = asyncio.create_task(worker.serve())
        await until_accepted(port)
        worker.drain()
        await asyncio.wait_for(serving, 60)
        assert not await accepts(port)
