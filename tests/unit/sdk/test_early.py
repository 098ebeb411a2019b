"""Early leases: a handler begins at its instant of the operator's clock, and never before it."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from tickwheel import _early
from tickwheel._execution import Execution
from tickwheel._protocol import Lease, PullAnswer


def soon(operator, seconds: float) -> int:
    """Milliseconds of the operator's clock."""
    return operator.clock_us() // 1000 + int(seconds * 1000)


class Pauses:
    """How long this process got no turn, at most: no handler can begin in such a pause."""

    def __init__(self) -> None:
        self.longest_ms = 0.0

    async def watch(self) -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            self.longest_ms, before = max(self.longest_ms, (now - before) * 1000), now


async def known_clock(operator) -> None:
    """The worker knows the operator's clock."""
    await operator.until(lambda: any(pull.clock is not None for pull in operator.pulls))


@pytest.fixture(params=["kernel", "loop"])
def timer(request, monkeypatch):
    if request.param == "loop":
        monkeypatch.setattr(_early.sys, "platform", "else")
    return request.param


@pytest.mark.parametrize("ahead", [0.0, -3.0, 3.0])
async def test_handlers_begin_at_their_instants_of_the_operators_clock(operator, start, timer, ahead):
    operator.clock_ahead_s = ahead
    began: dict[int, int] = {}

    async def handler(ctx):
        began[ctx.token] = operator.clock_us()

    def in_thread(ctx):
        began[ctx.token] = operator.clock_us()

    await start({"h": handler, "t": in_thread}, slots=50, pull_wait=0.05)
    await known_clock(operator)
    pauses = Pauses()
    watching = asyncio.create_task(pauses.watch())
    instants = {}
    for number in range(20):
        at = soon(operator, 0.15 + (number * 7 % 20) * 0.005)
        instants[operator.lease("ht"[number % 2], not_before_ms=at)] = at
    await operator.until(lambda: not operator.open)
    watching.cancel()
    late = [began[token] / 1000 - at for token, at in instants.items()]
    # By its estimate, which a busy machine may make wrong by some milliseconds.
    error = max(pull.clock.error_us for pull in operator.pulls if pull.clock is not None) / 1000
    assert min(late) >= -error
    assert max(late) < 1000 + pauses.longest_ms


async def test_an_instant_that_has_passed_is_now(operator, start):
    await start({"h": lambda ctx: 1})
    token = operator.lease("h", not_before_ms=soon(operator, -5))
    await operator.until(lambda: operator.succeeded[token])


async def test_without_an_estimate_the_instant_is_counted_from_the_answer(operator, start):
    operator.clock_ahead_s = None
    began = []
    await start({"h": lambda ctx: began.append(time.time())})
    at = time.time() + 0.3
    token = operator.lease("h", not_before_ms=int(at * 1000))
    await operator.until(lambda: operator.succeeded[token])
    assert began[0] >= at - 0.001


async def test_one_that_waits_takes_its_slot(operator, start):
    await start({"h": lambda ctx: 1}, slots=2, pull_wait=0.05)
    operator.lease("h", not_before_ms=soon(operator, 30))
    await operator.until(lambda: any(pull.free == 1 for pull in operator.pulls))


async def test_one_that_waits_is_returned_when_it_is_cancelled(operator, start):
    runs = []
    await start({"h": runs.append}, slots=2, pull_wait=0.5)
    tokens = [operator.lease("h", not_before_ms=soon(operator, 30 - n)) for n in range(2)]
    await operator.until(lambda: all(operator.sent[token] for token in tokens))
    operator.stop_attempt(tokens[0])
    await operator.until(lambda: operator.returned == [tokens[0]])
    await operator.until(lambda: operator.pulls[-1].free == 1)
    assert runs == []


async def test_the_drain_gives_back_those_that_wait(operator, start):
    runs = []
    worker = await start({"h": runs.append}, drain_timeout=60)
    token = operator.lease("h", not_before_ms=soon(operator, 30))
    await operator.until(lambda: operator.sent[token])
    worker.drain()
    await asyncio.wait_for(operator.left.wait(), 20)
    assert operator.returned == [token]
    assert runs == []


async def test_one_that_comes_just_as_the_drain_begins_is_given_back(operator, start, monkeypatch):
    runs = []
    worker = await start({"h": runs.append}, drain_timeout=60)
    await operator.until(lambda: operator.pulls_open)
    (link,) = worker._links.values()
    lease = Lease(
        token=77, run="r", task="n/t", handler="h", scheduled_ms=0, not_before_ms=soon(operator, 30), lease_ms=60_000
    )
    operator.open.add(77)
    give_back = Execution.give_back

    def and_then_the_answer_is_read(execution):
        if 77 not in link._seen:
            asyncio.get_running_loop().call_soon(link._accept, PullAnswer(epoch=1, now_ms=0, leases=[lease]))
        give_back(execution)

    monkeypatch.setattr(Execution, "give_back", and_then_the_answer_is_read)
    worker.drain()
    await asyncio.wait_for(operator.left.wait(), 20)
    assert operator.returned == [77]
    assert runs == []


async def test_lease_and_timeout_count_from_the_instant(operator, start):
    release = threading.Event()

    async def handler(ctx):
        await asyncio.sleep(0.2)
        return ctx.remaining

    await start({"h": handler, "t": lambda ctx: release.wait(5)}, pull_wait=0.1)
    await known_clock(operator)
    for _ in range(5):  # a pause of this process may be longer than the lease
        token = operator.lease("h", not_before_ms=soon(operator, 0.6), timeout_ms=400, lease_ms=450)
        await operator.until(lambda: not operator.open)
        if token in operator.results:
            break
    assert 0 < operator.results[token] <= 0.2
    release.set()


async def test_many_wait_in_one_heap_and_come_out_in_order():
    began: list[list[object]] = []
    early = _early.EarlyStarts(began.append)
    now = time.monotonic()
    attempts = [object() for _ in range(5)]
    for attempt, delay in zip(attempts, (0.05, 0.02, 0.05, 30, 0.01), strict=True):
        early.add(attempt, now + delay)
    assert early.discard(attempts[2])
    assert not early.discard(attempts[2])
    assert early.discard(attempts[4])
    early.add(attempts[4], now + 0.01)
    async with asyncio.timeout(20):
        while sum(map(len, began)) < 3:
            await asyncio.sleep(0.01)
    assert [attempt for batch in began for attempt in batch] == [attempts[4], attempts[1], attempts[0]]
    assert early.take() == [attempts[3]]
    early.close()
