"""A worker without a free slot still hears of cancellations at once, and loses no time when a slot is free."""

from __future__ import annotations

import asyncio

import pytest

from tickwheel import _link


async def test_a_cancellation_reaches_a_worker_without_a_free_slot(operator, start):
    async def handler(ctx):
        await asyncio.sleep(30)

    await start({"h": handler}, slots=1, pull_wait=30)
    token = operator.lease("h", lease_ms=90_000)
    await operator.until(lambda: operator.sent[token])
    await operator.until(lambda: operator.pulls_open and operator.pulls[-1].free == 0)
    operator.stop_attempt(token)
    await operator.until(lambda: token in operator.failed, timeout=20)  # before the pull is over
    assert not operator.renewed


async def test_each_of_several_cancellations_reaches_it(operator, start):
    async def handler(ctx):
        await asyncio.sleep(30)

    await start({"h": handler}, slots=5, pull_wait=30)
    tokens = [operator.lease("h", lease_ms=90_000, grace_ms=5000) for _ in range(5)]
    await operator.until(lambda: operator.pulls_open and operator.pulls[-1].free == 0)
    for token in tokens:
        operator.stop_attempt(token)
        await operator.until(lambda token=token: token in operator.failed, timeout=20)


async def test_a_slot_that_becomes_free_is_offered_at_once_beside_the_pull_that_listens(operator, start):
    release = asyncio.Event()

    async def handler(ctx):
        await release.wait()

    await start({"h": handler}, slots=1, pull_wait=30)
    first = operator.lease("h")
    await operator.until(lambda: operator.pulls_open and operator.pulls[-1].free == 0)
    second = operator.lease("h")
    release.set()
    await operator.until(lambda: operator.succeeded[second], timeout=20)  # before the pull that listens is over
    assert operator.succeeded[first] == 1
    assert [pull.free for pull in operator.pulls[:3]] == [1, 0, 1]
    assert operator.pulls_open == 1


async def test_short_handlers_cost_no_pulls_that_listen(operator, start):
    async def handler(ctx):
        await asyncio.sleep(0.005)

    for _ in range(100):
        operator.lease("h")
    await start({"h": handler}, slots=2)
    await operator.until(lambda: not operator.open)
    assert all(pull.free for pull in operator.pulls)


async def test_an_operator_that_answers_such_a_pull_at_once_is_not_pestered(operator, start):
    async def handler(ctx):
        await asyncio.sleep(1)

    await start({"h": handler}, slots=1, pull_wait=0)
    token = operator.lease("h")
    await operator.until(lambda: operator.succeeded[token])
    assert sum(pull.free == 0 for pull in operator.pulls) <= 1 / _link._FULL_SECONDS


async def test_a_worker_that_listens_follows_the_leader(operator, start):
    async def handler(ctx):
        await asyncio.sleep(30)

    await start({"h": handler}, slots=1, pull_wait=30)
    token = operator.lease("h", lease_ms=90_000)  # so that no renewal brings it
    await operator.until(lambda: operator.pulls_open and operator.pulls[-1].free == 0)
    before = len(operator.pulls)
    operator.move_leader()
    await operator.until(lambda: len(operator.pulls) > before and operator.pulls_open)
    operator.stop_attempt(token)
    await operator.until(lambda: token in operator.failed, timeout=20)  # before the pull is over


async def test_a_full_worker_finds_the_new_leader_though_the_old_one_holds_its_pull(
    operator, start, monkeypatch, patient_pulls
):
    monkeypatch.setattr(_link, "_OVERDUE_SECONDS", 0.1)

    async def handler(ctx):
        await asyncio.sleep(30)

    await start({"h": handler}, slots=1, pull_wait=0.5)
    token = operator.lease("h", lease_ms=60_000)  # so that no renewal brings it
    await operator.until(lambda: operator.pulls_open and operator.pulls[-1].free == 0)
    operator.hung.add(0)
    await asyncio.sleep(0.6)
    operator.move_leader()
    operator.stop_attempt(token)
    await operator.until(lambda: token in operator.failed, timeout=20)  # and not when the old one answers
    operator.hung.clear()


@pytest.mark.parametrize("full", [True, False])
async def test_a_worker_that_listens_drains_at_once(operator, start, full):
    async def handler(ctx):
        await asyncio.sleep(0.4)
        return 1

    worker = await start({"h": handler}, slots=1 if full else 2, pull_wait=30, drain_timeout=60)
    token = operator.lease("h")
    await operator.until(lambda: operator.pulls_open and operator.pulls[-1].free == (0 if full else 1))
    worker.drain()
    await asyncio.wait_for(operator.left.wait(), 20)  # before the pull is over
    assert operator.results == {token: 1}
    assert operator.pulls_open == 0
