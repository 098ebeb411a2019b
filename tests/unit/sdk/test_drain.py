"""Leaving: a worker that is told to stop finishes what it has, gives back the rest, and says goodbye."""

from __future__ import annotations

import asyncio
import signal
import textwrap

import pytest
from tests.unit.sdk.conftest import left

HANDLERS = textwrap.dedent(
    """
    import asyncio, pathlib, time
    from tickwheel import task

    def began(ctx):
        pathlib.Path("began-" + ctx.handler).touch()

    @task("slow")
    async def slow(ctx):
        began(ctx)
        await asyncio.sleep(0.5)
        return "finished"

    @task("slow-thread")
    def slow_thread(ctx):
        began(ctx)
        time.sleep(0.5)
        return "finished"

    @task("stubborn")
    async def stubborn(ctx):
        began(ctx)
        while True:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                pass

    @task("endless")
    def endless(ctx):
        began(ctx)
        while True:
            time.sleep(0.1)
    """
)


@pytest.fixture
def handlers_file() -> str:
    return HANDLERS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_handlers_finish_and_the_process_leaves_with_0(operator, process, tmp_path, number):
    made = await process()
    tokens = [operator.lease("slow"), operator.lease("slow-thread")]
    await operator.until(lambda: (tmp_path / "began-slow").exists() and (tmp_path / "began-slow-thread").exists())
    made.send_signal(number)
    code, errors = await left(made)
    assert code == 0, errors
    assert [operator.results[token] for token in tokens] == ["finished", "finished"]
    assert operator.left.is_set()
    assert operator.reports[-1].leaving
    assert operator.pulls[-1].draining


@pytest.mark.parametrize("handler", ["endless", "stubborn"])
async def test_a_handler_that_never_ends_does_not_keep_the_process(operator, process, tmp_path, handler):
    made = await process(TICKWHEEL_DRAIN_TIMEOUT="0.2")
    token = operator.lease(handler, grace_ms=100)
    await operator.until((tmp_path / f"began-{handler}").exists)
    made.send_signal(signal.SIGTERM)
    code, errors = await left(made)
    assert code == 0, errors
    assert operator.left.is_set()
    assert token in operator.open  # its loss is the operator's to judge, by the delivery guarantee
    assert not operator.failed


async def test_a_second_signal_ends_the_process_at_once(operator, process, tmp_path):
    made = await process()
    operator.lease("endless")
    await operator.until((tmp_path / "began-endless").exists)
    made.send_signal(signal.SIGTERM)
    await operator.until(lambda: operator.pulls[-1].draining)
    made.send_signal(signal.SIGTERM)
    code, errors = await left(made)
    assert code == 128 + signal.SIGTERM, errors
    assert not operator.left.is_set()


async def test_leases_that_arrive_while_draining_are_given_back(operator, start):
    async def handler(ctx): ...

    worker = await start({"h": handler})
    await operator.until(lambda: operator.pulls_open)
    worker.drain()
    token = operator.lease("h")  # the open pull is answered with it, after the drain began
    await operator.left.wait()
    assert operator.returned == [token]
    assert not operator.succeeded


async def test_a_handler_that_the_drain_stops_is_no_failed_attempt(operator, start):
    began, reasons = asyncio.Event(), []

    async def handler(ctx):
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            reasons.append(ctx.cancel_reason)

    worker = await start({"h": handler}, drain_timeout=0.1)
    token = operator.lease("h")
    await began.wait()
    worker.drain()
    await operator.left.wait()
    assert reasons == ["drain"]
    assert token in operator.open  # lost with the worker, so another gets it without a retry being used up
    assert not operator.failed


async def test_an_outcome_is_reported_through_an_outage_while_draining(operator, start):
    began = asyncio.Event()

    async def handler(ctx):
        began.set()
        await asyncio.sleep(0.2)
        return 1

    worker = await start({"h": handler}, drain_timeout=60)
    token = operator.lease("h")
    await began.wait()
    operator.unavailable = 6
    worker.drain()
    await asyncio.wait_for(operator.left.wait(), 60)
    assert operator.results[token] == 1


@pytest.mark.parametrize("away", ["gone", "silent", "unavailable"])
async def test_an_idle_worker_leaves_without_an_operator(operator, process, away):
    made = await process(TICKWHEEL_DRAIN_TIMEOUT="3600", TICKWHEEL_PULL_WAIT="30")
    await operator.until(lambda: operator.pulls_open and operator.pulls[-1].wait_ms)
    match away:
        case "gone":
            stopping = asyncio.create_task(operator.stop())  # refuses connections at once
        case "silent":
            operator.hung = {0, 1}
        case "unavailable":
            operator.unavailable = 10_000
    made.send_signal(signal.SIGTERM)
    code, errors = await left(made)  # well before the drain is over
    assert code == 0, errors
    if away == "gone":
        await stopping


async def test_leases_that_never_began_do_not_keep_a_worker_without_an_operator(operator, process, tmp_path):
    made = await process(TICKWHEEL_DRAIN_TIMEOUT="3600", TICKWHEEL_SLOTS="1", TICKWHEEL_PULL_WAIT="30")
    await operator.until(lambda: operator.pulls_open and operator.pulls[-1].wait_ms)
    operator.lease("slow", not_before_ms=4_000_000_000_000)
    await operator.until(lambda: len(operator.pulls) > 2)
    operator.unavailable = 10_000
    made.send_signal(signal.SIGTERM)
    code, errors = await left(made)
    assert code == 0, errors


async def test_a_worker_that_never_found_an_operator_leaves(operator, process):
    operator.slow_topology = True
    made = await process(TICKWHEEL_DRAIN_TIMEOUT="3600")
    await operator.until(lambda: operator.asked)
    made.send_signal(signal.SIGTERM)
    code, errors = await left(made)
    assert code == 0, errors


async def test_a_worker_leaves_while_a_name_cannot_be_resolved(operator, process, tmp_path):
    """As with DNS away: the thread that asks hangs in C for longer than the pod has."""
    slow = "import socket, time, pathlib\n"
    slow += "def getaddrinfo(*_, **__):\n    pathlib.Path('asked').touch()\n    time.sleep(3600)\n"
    slow += "socket.getaddrinfo = getaddrinfo\n"
    (tmp_path / "handlers.py").write_text(slow + HANDLERS)
    made = await process(TICKWHEEL_DRAIN_TIMEOUT="3600", TICKWHEEL_ENDPOINT="http://tickwheel.invalid:8080")
    async with asyncio.timeout(60):
        while not (tmp_path / "asked").exists():
            await asyncio.sleep(0.02)
    made.send_signal(signal.SIGTERM)
    code, errors = await left(made)
    assert code == 0, errors


async def test_a_worker_that_cannot_start_says_what_to_set(process):
    made = await process(TICKWHEEL_ENDPOINT="")
    code, errors = await left(made)
    assert code == 2
    assert "set TICKWHEEL_ENDPOINT or Worker(endpoint=...)" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("argument", ["nothing.py", "no_such"])
async def test_a_missing_module_is_named(process, argument):
    made = await process(argument)
    code, errors = await left(made)
    assert code == 2
    assert "tickwheel: there is no" in errors
    assert argument in errors


async def test_a_module_without_handlers_is_an_error(process, tmp_path):
    (tmp_path / "empty.py").write_text("")
    made = await process("empty.py")
    code, errors = await left(made)
    assert code == 2
    assert "no handlers are registered" in errors


async def test_modules_and_files_can_be_mixed(operator, process, tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("")
    others = HANDLERS.replace('"slow', '"shop-slow').replace('"endless', '"shop-endless').replace('"stub', '"shop-stub')
    (tmp_path / "shop" / "tasks.py").write_text(others)
    made = await process("handlers.py", "shop.tasks")
    await operator.until(lambda: operator.pulls)
    ours = ["endless", "slow", "slow-thread", "stubborn"]
    assert operator.pulls[0].handlers == sorted([*ours, *(f"shop-{name}" for name in ours)])
    made.send_signal(signal.SIGTERM)
    assert (await left(made))[0] == 0
