"""Handlers run as their authors expect: a real worker against a real HTTP server."""

from __future__ import annotations

import asyncio
import contextvars
import datetime as dt
import logging
import threading
import time
from dataclasses import dataclass

import pytest
from pydantic import BaseModel, computed_field

from tickwheel import Cancelled


async def test_asynchronous_and_synchronous_handlers_succeed(operator, start):
    @dataclass
    class Point:
        x: int

    class Model(BaseModel):
        day: dt.date

    async def nothing(ctx): ...

    async def greet(ctx, name: str):
        await asyncio.sleep(0)
        return f"hello, {name}"

    def compute(ctx):
        return {"point": Point(1), "model": Model(day=dt.date(2026, 1, 2)), "list": [Model(day=dt.date(2026, 1, 3))]}

    await start({"nothing": nothing, "greet": greet, "compute": compute})
    empty, computed = operator.lease("nothing"), operator.lease("compute")
    greeting = operator.lease("greet", {"name": "b"})
    await operator.until(lambda: not operator.open)
    assert operator.succeeded == {empty: 1, greeting: 1, computed: 1}
    assert operator.results == {
        greeting: "hello, b",
        computed: {"point": {"x": 1}, "model": {"day": "2026-01-02"}, "list": [{"day": "2026-01-03"}]},
    }


async def test_the_context_tells_about_the_attempt(operator, start, caplog):
    seen = []

    async def handler(ctx):
        seen.append(ctx)
        ctx.logger.warning("working on %s", "it")
        return [ctx.run, ctx.task, ctx.handler, ctx.attempt, ctx.token, ctx.idempotency_key, ctx.cancelled]

    await start({"h": handler})
    token = operator.lease("h", run="r-1", attempt=3, timeout_ms=60_000, scheduled_ms=1_700_000_000_123)
    timeless = operator.lease("h")
    await operator.until(lambda: not operator.open)
    assert operator.results[token] == ["r-1", "ns/task", "h", 3, token, "r-1", False]
    first = next(ctx for ctx in seen if ctx.token == token)
    assert first.scheduled_time == dt.datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=dt.UTC)
    assert 0 < (first.deadline - dt.datetime.now(dt.UTC)).total_seconds() <= 60
    assert 0 < first.remaining <= 60
    second = next(ctx for ctx in seen if ctx.token == timeless)
    assert second.deadline is None
    assert second.remaining is None
    record = next(r for r in caplog.records if getattr(r, "run", "") == "r-1")
    assert record.name == "tickwheel.task.h"
    assert record.getMessage() == "[r-1 #3] working on it"
    assert (record.attempt, record.levelno) == (3, logging.WARNING)


async def test_an_error_is_reported_with_its_type_and_the_handlers_traceback(operator, start):
    def inner():
        raise ValueError("no such shop")

    async def handler(ctx):
        inner()

    def in_thread(ctx):
        inner()

    await start({"h": handler, "t": in_thread})
    tokens = operator.lease("h"), operator.lease("t")
    await operator.until(lambda: not operator.open)
    for token in tokens:
        error = operator.failed[token]
        assert (error.type, error.message, error.timeout) == ("ValueError", "no such shop", False)
        assert "in inner" in error.traceback
        assert error.traceback.rstrip().endswith("ValueError: no such shop")
        assert "_execution.py" not in error.traceback
        assert "_threads.py" not in error.traceback


async def test_whatever_a_handler_raises_leaves_the_worker_alive(operator, start):
    class BrokenError(Exception):
        def __str__(self):
            raise RuntimeError("even this")

    async def leave(ctx):
        raise SystemExit(3)

    def leave_thread(ctx):
        raise SystemExit(3)

    async def cancel_itself(ctx):
        raise asyncio.CancelledError

    async def cancel_its_task(ctx):
        asyncio.current_task().cancel()

    async def broken(ctx):
        raise BrokenError

    async def fine(ctx): ...

    handlers = [leave, leave_thread, cancel_itself, cancel_its_task, broken]
    await start({**{f.__name__: f for f in handlers}, "fine": fine})
    tokens = {f.__name__: operator.lease(f.__name__) for f in handlers}
    await operator.until(lambda: not operator.open)
    types = {name: operator.failed[token].type for name, token in tokens.items() if token in operator.failed}
    assert types == {
        "leave": "SystemExit",
        "leave_thread": "SystemExit",
        "cancel_itself": "CancelledError",
        "broken": "BrokenError",
    }
    after = [operator.lease("fine") for _ in range(50)]
    await operator.until(lambda: not operator.open)
    assert all(operator.succeeded[token] == 1 for token in after)


async def test_a_cancellation_that_one_handler_left_behind_does_not_reach_the_next(operator, start):
    async def leaves_one(ctx):
        asyncio.current_task().cancel()

    async def waits(ctx):
        await asyncio.sleep(0)
        return asyncio.current_task().cancelling()

    # In one batch, so that they would share a task.
    first = operator.lease("leaves_one")
    others = [operator.lease("waits") for _ in range(3)]
    await start({"leaves_one": leaves_one, "waits": waits})
    await operator.until(lambda: not operator.open)
    assert operator.succeeded[first] == 1
    assert [operator.results[token] for token in others] == [0, 0, 0]


async def test_wrong_parameters_fail_the_attempt_without_a_call(operator, start):
    calls = []

    async def handler(ctx, shop: str):
        calls.append(shop)

    await start({"h": handler})
    token = operator.lease("h", {"shop": 5})
    missing = operator.lease("h")
    await operator.until(lambda: not operator.open)
    assert operator.failed[token].type == "ParameterError"
    assert "parameter 'shop' of handler h" in operator.failed[token].message
    assert operator.failed[token].traceback == ""
    assert operator.failed[token].permanent and operator.failed[missing].permanent
    assert "needs the parameter 'shop'" in operator.failed[missing].message
    assert calls == []


async def test_a_handler_that_is_not_registered_fails_with_the_names_that_are(operator, start):
    async def handler(ctx): ...

    await start({"known": handler})
    token = operator.lease("unknown")
    await operator.until(lambda: not operator.open)
    assert operator.failed[token].type == "HandlerNotFound"
    assert "no handler 'unknown'; it has known" in operator.failed[token].message


async def test_results_that_are_too_large_or_no_json_fail_the_attempt(operator, start):
    async def large(ctx):
        return "x" * 65_537

    async def just_fits(ctx):
        return "x" * (65_536 - 2)

    def strange(ctx):
        return threading.Lock()

    await start({"large": large, "fits": just_fits, "strange": strange})
    tokens = operator.lease("large"), operator.lease("fits"), operator.lease("strange")
    await operator.until(lambda: not operator.open)
    assert "65,539 bytes of JSON; up to 65,536" in operator.failed[tokens[0]].message
    assert len(operator.results[tokens[1]]) == 65_534
    assert "cannot be written as JSON" in operator.failed[tokens[2]].message


class Broken(BaseModel):
    raises: str = "LookupError"

    @computed_field
    @property
    def first(self) -> int:
        raise {"LookupError": LookupError, "SystemExit": SystemExit}[self.raises]("of the model's own code")


@pytest.mark.parametrize("raises", ["LookupError", "SystemExit"])
async def test_what_the_code_of_a_result_raises_fails_the_attempt_and_costs_no_slot(operator, start, raises):
    async def awaited(ctx):
        return Broken(raises=raises)

    await start({"a": awaited, "t": lambda ctx: Broken(raises=raises), "good": lambda ctx: 1}, slots=1)
    tokens = operator.lease("a"), operator.lease("t")
    good = operator.lease("good")
    await operator.until(lambda: not operator.open)
    for token in tokens:
        assert operator.failed[token].type == "ResultError"
        assert operator.failed[token].permanent, "its work is done, and would be done again"
        assert f"{raises}: of the model's own code" in operator.failed[token].message
    assert operator.results[good] == 1


async def test_many_large_results_and_tracebacks_are_split_into_reports_that_fit(operator, start):
    async def large(ctx):
        return "x" * 60_000

    def deep(ctx, depth: int = 50):
        raise ValueError('"\n' * 10_000)

    await start({"large": large, "deep": deep}, slots=100)
    for _ in range(40):
        operator.lease("large")
        operator.lease("deep")
    await operator.until(lambda: not operator.open)
    assert len(operator.results) == 40
    assert len(operator.failed) == 40
    assert max(map(len, operator.report_bodies)) < 1 << 20


async def test_synchronous_handlers_never_block_the_loop(operator, start):
    release = threading.Event()

    def block(ctx):
        release.wait(60)

    async def quick(ctx): ...

    await start({"block": block, "quick": quick}, slots=4)
    blocked = [operator.lease("block") for _ in range(3)]
    quick_ones = [operator.lease("quick") for _ in range(20)]
    await operator.until(lambda: all(operator.succeeded[token] for token in quick_ones))
    assert not any(operator.succeeded[token] for token in blocked)
    release.set()
    await operator.until(lambda: not operator.open)


async def test_no_more_attempts_run_at_once_than_there_are_slots(operator, start):
    running, most = 0, 0

    async def handler(ctx):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    await start({"h": handler}, slots=3)
    for _ in range(30):
        operator.lease("h")
    await operator.until(lambda: not operator.open)
    assert most == 3
    assert all(pull.free <= 3 for pull in operator.pulls)
    assert operator.pulls[0].slots == 3


async def test_handlers_that_wait_run_side_by_side(operator, start):
    together = asyncio.Barrier(40)

    async def handler(ctx):
        await together.wait()

    for _ in range(40):
        operator.lease("h")
    await start({"h": handler}, slots=40)
    await operator.until(lambda: not operator.open)


async def test_each_handler_has_a_task_and_context_variables_of_its_own(operator, start):
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    async def handler(ctx):
        seen.append(variable.get())
        variable.set("set by another attempt")
        if ctx.token % 2:
            await asyncio.sleep(0)

    def in_thread(ctx):
        seen.append(variable.get())
        variable.set("set by another attempt")

    await start({"h": handler, "t": in_thread})
    for _ in range(10):
        operator.lease("h")
        operator.lease("t")
    await operator.until(lambda: not operator.open)
    assert seen == ["unset"] * 20


async def test_timeouts_inside_a_handler_are_its_own(operator, start):
    """`asyncio.timeout` cancels the current task: it must be the handler's, from its first step on."""

    async def impatient(ctx):
        try:
            async with asyncio.timeout(0.02):
                await asyncio.sleep(60)
        except TimeoutError:
            return "timed out"

    async def group(ctx):
        async def fail():
            raise KeyError("k")

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fail())
                await asyncio.sleep(60)
        except* KeyError:
            failed = "group failed"
        return failed

    await start({"i": impatient, "g": group})
    tokens = [operator.lease(name) for name in "igigig"]
    await operator.until(lambda: not operator.open)
    assert [operator.results[token] for token in tokens] == ["timed out", "group failed"] * 3


async def test_the_execution_timeout_stops_a_handler(operator, start):
    ended = []

    async def handler(ctx):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(ctx.cancel_reason)
            raise

    def in_thread(ctx):
        while True:
            time.sleep(0.01)
            ctx.raise_if_cancelled()

    await start({"h": handler, "t": in_thread})
    for token in [await operator.begun_and_over(name, timeout_ms=50) for name in "ht"]:
        assert operator.failed[token].type == "TimeoutError"
        assert operator.failed[token].timeout
        assert "execution timeout of 50 ms" in operator.failed[token].message
        assert "Traceback" in operator.failed[token].traceback
    assert ended == ["timeout"]


async def test_a_cancel_in_a_pull_answer_stops_the_handler(operator, start):
    async def handler(ctx):
        await asyncio.sleep(60)

    await start({"h": handler})
    token = operator.lease("h")
    await operator.until(lambda: operator.sent[token])
    operator.cancel.add(token)
    operator.lease("h")  # ends the open pull
    await operator.until(lambda: token in operator.failed)
    assert operator.failed[token].type == "Cancelled"


async def test_a_cancel_in_a_report_answer_stops_the_handler(operator, start):
    def handler(ctx):
        while not ctx.cancelled:
            time.sleep(0.01)
        raise Cancelled("stopped tidily")

    await start({"h": handler}, slots=1)
    for _ in range(5):  # a pause of this process may be longer than the lease
        token = operator.lease("h", lease_ms=300)
        await operator.until(lambda token=token: operator.sent[token])
        operator.told.add(token)  # so that no pull brings it
        operator.cancel.add(token)
        await operator.until(lambda token=token: token in operator.failed)
        if operator.failed[token].type != "LeaseLost":
            break
    assert operator.failed[token].type == "Cancelled"


async def test_a_fenced_attempt_is_stopped_and_not_reported(operator, start):
    reasons = []

    async def handler(ctx):
        try:
            await asyncio.sleep(60)
        finally:
            reasons.append(ctx.cancel_reason)

    await start({"h": handler}, slots=1)
    for _ in range(5):  # a pause of this process may be longer than the lease
        reasons.clear()
        token = operator.lease("h", lease_ms=300)
        operator.fence.add(token)
        await operator.until(lambda: reasons)
        operator.open.discard(token)
        if reasons != ["lease-lost"]:
            break
    assert reasons == ["fenced"]
    other = await operator.begun_and_over("h", timeout_ms=20)
    assert other in operator.failed
    assert not any(error.token == token for report in operator.reports for error in report.failed)


async def test_running_attempts_renew_their_leases_and_tell_their_progress(operator, start):
    release = threading.Event()

    def handler(ctx):
        for step in range(1000):
            ctx.progress(step / 1000, f"step {step}")
        release.wait(60)

    await start({"h": handler})
    token = operator.lease("h", lease_ms=600)
    await operator.until(lambda: operator.renewed[token] >= 4)
    release.set()
    await operator.until(lambda: not operator.open)
    assert operator.succeeded[token] == 1
    assert len(operator.progress) < 5
    assert operator.progress[-1].fraction == 0.999
    assert operator.progress[-1].message == "step 999"


async def test_progress_may_be_told_with_whatever_becomes_a_text(operator, start):
    release = threading.Event()

    def handler(ctx, message):
        ctx.progress(0.5, 404 if message == "a number" else message.replace("?", "\udcff"))
        release.wait(60)

    await start({"h": handler}, slots=3)
    number, strange, long = (
        operator.lease("h", {"message": text}) for text in ("a number", "?" + "x" * 2_000, "y" * 1_001)
    )
    await operator.until(lambda: len(operator.progress) == 3)
    told = {progress.token: progress.message for progress in operator.progress}
    assert told == {number: "404", strange: "\\udcff" + "x" * 999, long: "y" * 1_000}
    release.set()
    await operator.until(lambda: not operator.open)


async def test_a_coroutine_from_a_synchronous_function_is_an_error_that_says_so(operator, start):
    async def inner():
        return 1

    await start({"h": lambda ctx: inner()})
    token = operator.lease("h")
    await operator.until(lambda: not operator.open)
    assert "async def" in operator.failed[token].message


async def test_the_pull_says_who_asks(operator, start):
    settings = {"labels": {"gpu": "true"}, "pool": "shops", "namespace": "n", "token": "t0k"}
    await start({"b": lambda ctx: 1, "a": lambda ctx: 1}, **settings)
    await operator.until(lambda: operator.pulls)
    pull = operator.pulls[0]
    assert pull.handlers == ["a", "b"]
    assert (pull.worker.namespace, pull.worker.pool, pull.worker.name) == ("n", "shops", "w")
    assert pull.labels == {"gpu": "true"}
    assert pull.load is not None
    assert pull.load.memory_bytes > 0
    assert abs(pull.now_ms / 1000 - time.time()) < 10
    assert operator.headers[0]["Authorization"] == "Bearer t0k"


async def test_a_token_file_is_read_again_when_it_changes(operator, start, tmp_path):
    file = tmp_path / "token"
    file.write_text("one\n")
    await start({"h": lambda ctx: 1}, token_file=file)
    await operator.until(lambda: len(operator.pulls) == 2)  # the one that waits for work
    renewed = tmp_path / "renewed"
    renewed.write_text("two\n")
    renewed.rename(file)
    operator.lease("h")
    await operator.until(lambda: len(operator.pulls) > 2)
    assert [headers["Authorization"] for headers in operator.headers[:3]] == ["Bearer one"] * 2 + ["Bearer two"]


@pytest.mark.parametrize("slots", [1, 7])
async def test_a_burst_is_run_once_each(operator, start, slots):
    runs = []

    async def handler(ctx):
        runs.append(ctx.token)
        if ctx.token % 3 == 0:
            await asyncio.sleep(0.001)

    await start({"h": handler}, slots=slots)
    tokens = [operator.lease("h") for _ in range(200)]
    await operator.until(lambda: not operator.open)
    assert sorted(runs) == tokens
    assert all(operator.succeeded[token] == 1 for token in tokens)
