"""Handlers that do not stop: interrupted, else the worker ends itself; none is reported before it is really gone."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import textwrap
import threading
import time

import pytest
from tests.unit.sdk.conftest import left

from tickwheel import _execution, _threads
from tickwheel._attempt import Attempt, Stop
from tickwheel._last_resort import STATUS
from tickwheel._protocol import Lease
from tickwheel._registry import Handler

HANDLERS = textwrap.dedent(
    """
    import asyncio, os, pathlib, re, time
    from tickwheel import _execution, _watchdog, task

    _execution._LAST_CHANCE_SECONDS = 0.2
    if "QUICK" in os.environ:
        _watchdog._IDLE_SECONDS = _watchdog._HELD_UP_SECONDS = 1.2

    @task("sleeps-in-c")
    def sleeps_in_c(ctx):
        pathlib.Path("began").touch()
        time.sleep(60)

    @task("swallows")
    async def swallows(ctx):
        pathlib.Path("began").touch()
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass

    @task("blocks-the-loop")
    async def blocks_the_loop(ctx):
        time.sleep(60)

    @task("holds-the-interpreter")
    def holds_the_interpreter(ctx):
        re.match("(a+)+$", "a" * 60 + "b")

    @task("slow")
    async def slow(ctx):
        await asyncio.sleep(1)
        return "finished"
    """
)


@pytest.fixture
def handlers_file() -> str:
    return HANDLERS


@pytest.fixture(autouse=True)
def last_chance(monkeypatch):
    """Of handlers in this process, which may pause after it interrupted one and before that gets its turn."""
    monkeypatch.setattr(_execution, "_LAST_CHANCE_SECONDS", 60)


@pytest.mark.parametrize("stop", ["cancel", "timeout"])
async def test_an_endless_loop_in_a_thread_is_interrupted_at_the_end_of_its_grace(operator, start, stop):
    began, ended = [], []

    def endless(ctx):
        began.append(time.monotonic())
        while True:
            try:
                while True:
                    pass
            except Exception:
                continue
            finally:
                ended.append(time.monotonic())

    await start({"endless": endless}, slots=1)
    earliest = time.monotonic() + 0.2
    if stop == "timeout":
        token = await operator.begun_and_over("endless", grace_ms=200, timeout_ms=100)
        earliest += 0.1
    else:
        token = operator.lease("endless", grace_ms=200)
        await operator.until(lambda: began)
        earliest = time.monotonic() + 0.2
        operator.stop_attempt(token)
    await operator.until(lambda: token in operator.failed)
    assert len(ended) == 1 and ended[0] >= earliest
    error = operator.failed[token]
    assert error.type == {"cancel": "Cancelled", "timeout": "TimeoutError"}[stop]
    assert error.timeout == (stop == "timeout")
    assert error.message.endswith("did not stop within its grace of 200 ms: it was interrupted")
    assert "in endless" in error.traceback
    after = operator.lease("endless", timeout_ms=1, grace_ms=1)
    await operator.until(lambda: after not in operator.open)  # returned, if its time was over before it began


async def test_an_interruption_never_hits_the_attempt_after(operator, start):
    def until_stopped(ctx):
        while not ctx.cancelled:
            pass

    def innocent(ctx):
        for _ in range(2000):
            pass
        return "fine"

    # With a grace of nothing, the interruption comes when the handler is just about to end, and in its thread the next
    # one begins at once.
    await start({"u": until_stopped, "i": innocent}, slots=2)
    innocents = []
    for number in range(150):
        operator.lease("u", timeout_ms=1 + number % 3, grace_ms=number % 3)
        innocents.append(operator.lease("i"))
    await operator.until(lambda: not operator.open)
    assert [operator.results.get(token) for token in innocents] == ["fine"] * len(innocents)
    assert {error.type for error in operator.failed.values()} == {"TimeoutError"}


async def test_an_interruption_that_comes_late_hits_nothing(monkeypatch):
    release = threading.Event()
    ended: list[tuple[object, object]] = []
    threads = _threads.HandlerThreads(1, lambda attempt, report: ended.append((attempt, report)), lambda attempt: None)
    inject = _threads._raise_in

    def late(ident, error):
        """The loop's thread had to wait just there, and meanwhile the handler ended."""
        if error is not None:
            release.set()
            while any(seat.attempt is not None for seat in threads._seats):
                time.sleep(0)
        inject(ident, error)

    def made(token, function):
        lease = Lease(token=token, run="r", task="n/t", handler="h", scheduled_ms=0, grace_ms=0)
        return Attempt(lease, Handler("h", function), None, time.monotonic())

    monkeypatch.setattr(_threads, "_raise_in", late)
    first = made(1, lambda ctx: release.wait(60) and None)
    threads.submit(first)
    while threads._seats[0].attempt is None:
        await asyncio.sleep(0.001)
    first.must_stop(Stop.CANCELLED, time.monotonic())
    assert threads.interrupt(first)
    second = made(2, lambda ctx: None)
    threads.submit(second)
    async with asyncio.timeout(30):
        while len(ended) < 2:
            await asyncio.sleep(0.001)
    assert ended == [(first, 1), (second, 2)]
    threads.stop()


async def test_an_asynchronous_handler_that_swallowed_its_cancellation_is_cancelled_once_more(operator, start):
    async def stubborn(ctx):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    await start({"s": stubborn}, slots=2)
    token = await operator.begun_and_over("s", timeout_ms=30, grace_ms=50)
    assert operator.failed[token].type == "TimeoutError"
    assert "did not stop within its grace of 50 ms: it was cancelled once more" in operator.failed[token].message


async def test_a_worker_that_stood_still_gives_an_interrupted_handler_its_turn_before_it_calls_it_stuck():
    stuck = []
    execution = _execution.Execution(1, [], freed=lambda: None, stuck=stuck.append)
    lease = Lease(token=1, run="r", task="n/t", handler="h", scheduled_ms=0, grace_ms=0)
    attempt, now = Attempt(lease, Handler("h", asyncio.sleep), None, 0.0), 10.0
    attempt.task = asyncio.create_task(asyncio.sleep(60))
    attempt.must_stop(Stop.CANCELLED, now)
    execution.kill(attempt, now)
    execution.kill(attempt, now + 3600)
    assert not stuck
    assert now + 3600 < attempt.kill_at < now + 3700
    execution.kill(attempt, attempt.kill_at)
    assert stuck == [attempt]
    await execution.stop()


async def test_nothing_is_reported_while_the_handler_still_runs(operator, start):
    release, began = asyncio.Event(), asyncio.Event()

    async def tidy(ctx):
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            await release.wait()

    await start({"t": tidy}, slots=2, pull_wait=0.1)
    token = operator.lease("t", lease_ms=300)
    await began.wait()
    operator.stop_attempt(token)
    # Its lease is renewed meanwhile, and its slot is taken.
    await operator.until(lambda: operator.renewed[token] >= 3)
    assert token in operator.open
    assert operator.pulls[-1].free == 1
    release.set()
    await operator.until(lambda: token in operator.failed)
    assert (operator.failed[token].type, operator.failed[token].message) == ("Cancelled", "handler t was cancelled")


async def test_a_handler_that_finishes_though_it_was_cancelled_has_succeeded(operator, start):
    began = []

    async def finishes(ctx):
        began.append(ctx.token)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "done"

    def fails(ctx):
        began.append(ctx.token)
        while not ctx.cancelled:
            time.sleep(0.01)
        raise OSError("the disk")

    await start({"finishes": finishes, "fails": fails})
    tokens = operator.lease("finishes"), operator.lease("fails")
    await operator.until(lambda: len(began) == 2)
    for token in tokens:
        operator.stop_attempt(token)
    await operator.until(lambda: not operator.open)
    assert operator.results == {tokens[0]: "done"}
    assert operator.failed[tokens[1]].type == "Cancelled"
    assert operator.failed[tokens[1]].message == "handler fails was cancelled, and raised OSError: the disk"


@pytest.mark.parametrize("handler", ["sleeps-in-c", "swallows"])
async def test_a_worker_that_cannot_stop_a_handler_finishes_the_others_and_ends_itself(
    operator, process, tmp_path, handler
):
    made = await process(TICKWHEEL_SLOTS="3")
    stuck, other = operator.lease(handler, grace_ms=100), operator.lease("slow")
    early = operator.lease("slow", not_before_ms=operator.clock_us() // 1000 + 60_000)
    await operator.until(lambda: operator.sent[early] and (tmp_path / "began").exists())
    operator.stop_attempt(stuck)
    code, errors = await left(made)
    assert code == 70
    assert (
        f"handler {handler} of run run-{stuck} did not stop within its grace of 100 ms: the worker ends itself"
        in errors
    )
    assert operator.results[other] == "finished"
    assert operator.returned == [early]
    assert operator.open == {stuck}
    assert not operator.left.is_set(), "the operator would take the attempt for ended while it runs"


async def test_a_handler_that_gets_stuck_while_the_worker_drains_does_not_hold_it_up(operator, process, tmp_path):
    made = await process(TICKWHEEL_DRAIN_TIMEOUT="600")
    while not (tmp_path / "began").exists():
        token = operator.lease("swallows", timeout_ms=400, grace_ms=100)
        await operator.until(lambda token=token: (tmp_path / "began").exists() or token in operator.returned)
    with contextlib.suppress(ProcessLookupError):  # it may be stuck already
        made.send_signal(signal.SIGTERM)
    code, errors = await left(made)
    assert code == 70, errors
    assert operator.open == {token}
    assert not operator.left.is_set()


async def test_a_handler_that_blocks_the_event_loop_ends_the_worker(operator, process):
    made = await process()
    token = operator.lease("blocks-the-loop", lease_ms=300, grace_ms=100)
    code, errors = await left(made)
    assert code == 70
    assert f"handler blocks-the-loop of run run-{token} did not stop within its grace of 100 ms" in errors
    assert "the event loop is blocked" in errors
    assert "time.sleep(60)" in errors
    assert operator.open == {token}


async def test_c_code_that_holds_the_interpreter_does_not_keep_the_worker_alive(operator, process):
    token = operator.lease("holds-the-interpreter")
    code, errors = await left(await process(QUICK="1"))
    assert code == STATUS
    assert "holds_the_interpreter" in errors
    assert operator.open == {token}


@pytest.mark.parametrize("holding", ["nothing", "an attempt"])
async def test_a_worker_that_was_paused_goes_on(operator, process, tmp_path, holding):
    made = await process(QUICK="1")
    await operator.until(lambda: operator.pulls_open and operator.pulls[-1].wait_ms)
    if holding == "an attempt":
        operator.lease("slow", lease_ms=300, grace_ms=100)
        await operator.until(lambda: operator.sent)
    made.send_signal(signal.SIGSTOP)
    await asyncio.sleep(5)  # twice what it would have without the pause
    made.send_signal(signal.SIGCONT)
    token = operator.lease("slow")
    await operator.until(lambda: token in operator.results or made.returncode is not None)
    assert made.returncode is None
    made.send_signal(signal.SIGTERM)
    code, errors = await left(made)
    assert code == 0, errors


async def test_a_program_with_a_loop_of_its_own_is_told_that_it_must_end(operator, monkeypatch):
    monkeypatch.setattr(_execution, "_LAST_CHANCE_SECONDS", 0.2)
    release = asyncio.Event()

    async def swallows(ctx):
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    from tickwheel import HandlerStuckError, Worker

    worker = Worker(endpoint=operator.url, name="w", handlers={"s": swallows}, drain_timeout=0.2)
    serving = asyncio.create_task(worker.serve())
    while not serving.done():  # one whose time is over before it began is returned
        token = operator.lease("s", timeout_ms=10, grace_ms=10)
        await operator.until(lambda token=token: serving.done() or token in operator.returned)
    with pytest.raises(HandlerStuckError, match=f"handler s of run run-{token} did not stop within its grace of 10 ms"):
        await serving
    assert token in operator.open
    release.set()
