"""Through any loss of the operator: nothing runs twice in one worker, and every outcome arrives."""

from __future__ import annotations

import asyncio

from tests.unit.sdk.fake_operator import FakeOperator

from tickwheel import _link


async def test_a_lost_pull_answer_is_asked_for_again(operator, start):
    runs = []

    async def handler(ctx):
        runs.append(ctx.token)

    operator.lose_pull_answers = 3
    await start({"h": handler})
    tokens = [operator.lease("h") for _ in range(5)]
    await operator.until(lambda: not operator.open)
    assert sorted(runs) == tokens
    assert any(operator.sent[token] > 1 for token in tokens)


async def test_a_lease_that_is_sent_again_runs_once(operator, start):
    runs = []

    async def handler(ctx):
        runs.append(ctx.token)
        await operator.until(lambda: operator.sent[ctx.token] > 1)
        await asyncio.sleep(0.3)

    operator.repeat_leases = True
    await start({"h": handler})
    tokens = [operator.lease("h") for _ in range(3)]
    await operator.until(lambda: not operator.open)
    assert all(operator.sent[token] > 1 for token in tokens)
    assert sorted(runs) == tokens


async def test_a_cancelled_lease_that_comes_after_its_cancel_is_given_back_and_never_begun(operator, start):
    runs, go_on = [], asyncio.Event()

    async def handler(ctx):
        runs.append(ctx.token)
        await go_on.wait()

    await start({"h": handler}, slots=1)
    first = operator.lease("h")
    await operator.until(lambda: runs)
    late = operator.lease("h")  # there is no room: for the worker its answer is still on its way
    operator.stop_attempt(late)
    await operator.until(lambda: late in operator.returned)
    operator.cancel.clear()
    operator.open.add(late)
    go_on.set()
    await operator.until(lambda: operator.sent[late])
    last = operator.lease("h")
    await operator.until(lambda: operator.succeeded[last])
    assert runs == [first, last]
    assert operator.pulls[-1].received >= late


async def test_each_pull_has_a_higher_sequence_than_the_one_before(operator, start):
    async def handler(ctx): ...

    operator.lose_pull_answers = 2
    await start({"h": handler})
    operator.lease("h")
    await operator.until(lambda: not operator.open and len(operator.pulls) > 3)
    told = [pull.sequence for pull in operator.pulls]
    assert told == sorted(set(told))
    assert told[0] > 0


async def test_a_report_whose_answer_is_lost_is_sent_again_unchanged(operator, start):
    async def handler(ctx):
        return "done"

    operator.lose_report_answers = 2
    await start({"h": handler})
    token = operator.lease("h")
    await operator.until(lambda: len(operator.report_bodies) >= 3)
    assert operator.report_bodies[0] == operator.report_bodies[1] == operator.report_bodies[2]
    assert operator.succeeded[token] == 1


async def test_outcomes_gather_while_a_report_is_under_way(operator, start):
    async def handler(ctx): ...

    operator.unavailable = 0
    await start({"h": handler}, slots=50)
    for _ in range(500):
        operator.lease("h")
    await operator.until(lambda: not operator.open)
    assert len(operator.reports) < 100


async def test_a_worker_waits_for_an_operator_that_is_not_there_yet(start):
    fake = FakeOperator()
    await fake.start()
    fake.unavailable = 4
    worker = await start({"h": lambda ctx: 1}, endpoint=fake.url)
    token = fake.lease("h")
    await fake.until(lambda: fake.succeeded[token])
    worker.drain()
    await fake.left.wait()
    await fake.stop()


async def test_unavailable_answers_are_tried_again(operator, start):
    release = asyncio.Event()

    async def handler(ctx):
        await release.wait()
        return 1

    await start({"h": handler}, slots=2)
    token = operator.lease("h")
    await operator.until(lambda: operator.sent[token])
    operator.unavailable = 6
    release.set()
    await operator.until(lambda: not operator.open)
    assert operator.results[token] == 1


async def test_attempts_outlive_a_move_of_the_leader(operator, start):
    release = asyncio.Event()
    runs = []

    async def handler(ctx):
        runs.append(ctx.token)
        await release.wait()

    await start({"h": handler})
    before = operator.lease("h")
    await operator.until(lambda: operator.sent[before])
    operator.move_leader()
    after = operator.lease("h")
    await operator.until(lambda: operator.sent[after])
    assert operator.open == {before, after}
    release.set()
    await operator.until(lambda: not operator.open)
    assert runs == [before, after]
    assert operator.pulls[-1].epoch == 2


async def test_the_leader_may_move_many_times(operator, start):
    runs = []

    async def handler(ctx):
        runs.append(ctx.token)
        await asyncio.sleep(0.05)

    await start({"h": handler})
    tokens = []
    for _ in range(5):
        tokens += [operator.lease("h") for _ in range(10)]
        await asyncio.sleep(0.05)
        operator.move_leader()
    await operator.until(lambda: not operator.open)
    assert sorted(runs) == tokens
    assert all(operator.succeeded[token] == 1 for token in tokens)


async def test_a_killed_leader_is_left_for_the_new_one(operator, start):
    async def handler(ctx):
        await asyncio.sleep(0.2)

    # The endpoint stays up, as a Service does; the leader is the other replica.
    operator.move_leader()
    await start({"h": handler}, pull_wait=0.5)
    token = operator.lease("h")
    await operator.until(lambda: operator.sent[token])
    await operator.servers[1].close()
    operator.move_leader()
    await operator.until(lambda: operator.succeeded[token])
    after = operator.lease("h")
    await operator.until(lambda: operator.succeeded[after])


async def test_a_pull_that_hangs_at_the_old_leader_does_not_keep_the_worker_from_the_new_one(operator, start):
    release = asyncio.Event()

    async def handler(ctx):
        await release.wait()

    await start({"h": handler}, pull_wait=20)
    token = operator.lease("h", lease_ms=3000)
    await operator.until(lambda: operator.sent[token])
    await operator.until(lambda: operator.pulls_open)
    operator.hung.add(0)
    operator.move_leader()
    release.set()
    # The report finds out, and the open pull is not waited for.
    await operator.until(lambda: operator.succeeded[token])
    after = operator.lease("h")
    await operator.until(lambda: operator.succeeded[after])
    operator.hung.clear()


async def test_an_idle_worker_finds_the_new_leader_though_the_old_one_holds_its_pull(
    operator, start, monkeypatch, patient_pulls
):
    monkeypatch.setattr(_link, "_OVERDUE_SECONDS", 0.1)

    async def handler(ctx): ...

    await start({"h": handler}, pull_wait=0.5)
    operator.hung.add(0)
    await operator.until(lambda: operator.pulls_open)
    await asyncio.sleep(0.6)
    operator.move_leader()
    token = operator.lease("h")

    await operator.until(lambda: operator.succeeded[token], timeout=20)  # and not when the old one answers
    operator.hung.clear()


async def test_an_outcome_does_not_wait_for_the_answer_to_the_one_before(operator, start):
    async def handler(ctx): ...

    await start({"h": handler})
    operator.reports_held = 1
    slow = operator.lease("h")
    await operator.until(lambda: not operator.reports_held)
    for _ in range(3):
        token = operator.lease("h")
        await operator.until(lambda token=token: operator.succeeded[token])
    assert not operator.succeeded[slow]

    operator.release.set()
    await operator.until(lambda: operator.succeeded[slow])


async def test_a_worker_says_that_it_leaves_when_every_report_is_answered(operator, start):
    async def handler(ctx): ...

    worker = await start({"h": handler}, drain_timeout=60)
    operator.reports_held = 1
    slow = operator.lease("h")
    await operator.until(lambda: not operator.reports_held)
    fast = operator.lease("h")
    await operator.until(lambda: operator.succeeded[fast])

    worker.drain()
    await asyncio.sleep(0.3)
    assert not operator.left.is_set(), "what the report under way says would be fenced"
    operator.release.set()
    await operator.until(operator.left.is_set)
    assert operator.succeeded[slow] == 1
    assert [report.leaving for report in operator.reports].count(True) == 1


async def test_an_answer_of_a_lower_epoch_is_refused(operator, start):
    runs = []

    async def handler(ctx):
        runs.append(ctx.token)

    operator.epoch = 7
    await start({"h": handler})
    first = operator.lease("h")
    await operator.until(lambda: operator.succeeded[first])
    operator.answer_epoch = 6
    zombie = operator.lease("h")
    await operator.until(lambda: operator.sent[zombie])
    await asyncio.sleep(0.3)
    assert runs == [first]
    operator.answer_epoch = None
    await operator.until(lambda: operator.succeeded[zombie])
    assert runs == [first, zombie]


async def test_a_deposed_leader_cancels_nothing_in_the_last_pull_either(operator, start):
    began = asyncio.Event()

    async def handler(ctx):
        began.set()
        await asyncio.sleep(0.2)
        return "finished"

    operator.epoch = 7
    worker = await start({"h": handler}, drain_timeout=60)
    token = operator.lease("h")
    await began.wait()
    operator.answer_epoch = 6
    operator.cancel.add(token)
    worker.drain()
    await operator.until(lambda: not operator.open)
    assert operator.pulls[-1].draining
    assert operator.results == {token: "finished"}


async def test_an_operator_of_a_passed_epoch_is_asked_again_later(operator, start):
    operator.epoch = 5
    await start({"h": lambda ctx: 1})
    first = operator.lease("h")
    await operator.until(lambda: operator.succeeded[first])
    operator.epoch = 4  # answers 409 epoch-passed now
    asked = len(operator.pulls)
    operator.lease("h")
    await operator.until(lambda: len(operator.pulls) > asked + 2)
    operator.epoch = 6
    await operator.until(lambda: not operator.open)


async def test_a_lease_that_cannot_be_renewed_ends_the_handler(operator, start):
    reasons = []

    async def handler(ctx):
        try:
            await asyncio.sleep(60)
        finally:
            reasons.append(ctx.cancel_reason)

    operator.silent_on_reports = True
    await start({"h": handler})
    operator.lease("h", lease_ms=400)
    await operator.until(lambda: reasons)
    assert reasons == ["lease-lost"]
    operator.silent_on_reports = False
    await operator.until(lambda: not operator.open)
    assert [error.type for error in operator.failed.values()] == ["LeaseLost"]


async def test_one_result_that_the_operator_refuses_does_not_cost_the_others(operator, start):
    async def handler(ctx):
        return ctx.token

    tokens = [operator.lease("h") for _ in range(30)]
    bad = {tokens[4], tokens[17]}
    operator.refuse_results = set(bad)
    await start({"h": handler}, slots=30)
    await operator.until(lambda: not operator.open)
    assert operator.results == {token: token for token in tokens if token not in bad}
    assert operator.failed.keys() == bad
    assert all("the operator refused the result" in error.message for error in operator.failed.values())


async def test_text_that_json_cannot_hold_does_not_stop_the_reports(operator, start):
    async def fail(ctx):
        raise FileNotFoundError("report-\udcff.csv")

    async def progress(ctx):
        ctx.progress(0.5, "report-\udcff.csv")
        await operator.until(lambda: operator.progress)

    await start({"fail": fail, "progress": progress, "fine": lambda ctx: "\u00e9"})
    failing = operator.lease("fail")
    told = operator.lease("progress")
    fine = operator.lease("fine")
    await operator.until(lambda: not operator.open)
    assert operator.failed[failing].message == "report-\\udcff.csv"
    assert operator.succeeded[told] == 1
    assert operator.progress[0].message == "report-\\udcff.csv"
    assert operator.results == {fine: "\u00e9"}


async def test_a_report_names_at_most_as_many_tokens_as_the_protocol_allows(operator, start):
    renewed = asyncio.Event()

    async def handler(ctx):
        ctx.progress(0.5)
        await renewed.wait()

    await start({"h": handler}, slots=9500)
    for _ in range(5):  # a pause of this process may be longer than the leases
        renewed.clear()
        tokens = [operator.lease("h", lease_ms=6000) for _ in range(9500)]
        await operator.until(lambda tokens=tokens: all(operator.renewed[t] or t not in operator.open for t in tokens))
        renewed.set()
        await operator.until(lambda: not operator.open)
        if all(operator.renewed[token] for token in tokens):
            break
    sizes = [
        len(report.succeeded) + len(report.renew) + len(report.progress) + len(report.returned)
        for report in operator.reports
    ]
    assert max(sizes) <= 10_000
    assert all(operator.renewed[token] for token in tokens)
