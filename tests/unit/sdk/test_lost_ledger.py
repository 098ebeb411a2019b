"""The operator's ledger is another one, or older: a worker begins anew instead of being refused for ever."""

from __future__ import annotations

import asyncio

from tickwheel import _link


async def test_a_worker_goes_on_under_another_ledger_that_begins_with_the_same_tokens(operator, start):
    begun = []

    async def handler(ctx, number):
        begun.append(number)

    operator.epoch = 10
    await start({"h": handler})
    operator.lease("h", {"number": 1})
    await operator.until(lambda: operator.succeeded[1] == 1)
    known = {pull.worker.instance for pull in operator.pulls}
    operator.lose_the_ledger()
    assert operator.lease("h", {"number": 2}) == 1
    await operator.until(lambda: operator.succeeded[1] == 2)
    assert begun == [1, 2]
    last = operator.pulls[-1]
    assert (last.ledger, last.worker.instance in known) == (operator.ledger, False)


async def test_an_attempt_of_a_ledger_that_is_gone_is_stopped_and_its_outcome_goes_to_nobody(operator, start):
    stopped, ended = [], []

    async def old(ctx):
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append(ctx.cancel_reason)

    async def new(ctx):
        ended.append(ctx.token)
        return "new"

    await start({"old": old, "new": new})
    operator.lease("old", lease_ms=600)
    await operator.until(lambda: operator.renewed[1])
    operator.lose_the_ledger()
    operator.lease("new")
    await operator.until(lambda: 1 in operator.results)
    await operator.until(lambda: stopped)
    assert (stopped, ended, operator.results) == (["fenced"], [1], {1: "new"})
    assert not operator.failed


async def test_an_outcome_that_waits_for_its_report_is_no_outcome_of_the_next_ledger(operator, start):
    async def handler(ctx, number):
        return number

    operator.silent_on_reports = True
    await start({"h": handler})
    operator.lease("h", {"number": 1}, lease_ms=3_000)
    await operator.until(lambda: operator.sent[1])
    operator.lose_the_ledger()
    operator.lease("h", {"number": 2})
    operator.silent_on_reports = False
    await operator.until(lambda: 1 in operator.results)
    assert operator.results == {1: 2}
    assert {report.ledger for report in operator.reports} == {operator.ledger}


async def test_a_leader_that_says_without_end_that_its_epoch_has_passed_was_restored_from_a_backup(
    operator, start, monkeypatch
):
    monkeypatch.setattr(_link, "_PASSED_SECONDS", 0.5)
    begun = []

    async def handler(ctx, number):
        begun.append(number)

    operator.epoch = 10
    await start({"h": handler})
    operator.lease("h", {"number": 1})
    await operator.until(lambda: operator.succeeded[1] == 1)
    operator.epoch = 8
    operator.forget_attempts()
    operator.lease("h", {"number": 2})
    await operator.until(lambda: operator.succeeded[1] == 2)
    assert begun == [1, 2]
