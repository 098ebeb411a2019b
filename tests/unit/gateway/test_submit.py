"""`POST /v1/tasks/{namespace}/{name}/runs`."""

from __future__ import annotations

import pytest
from tests.unit.gateway.scripted import NOW_MS, ScriptedBackend, serving

from tickwheel_operator.engine.messages import CommandRefused, RefusalReason, RunState, Submitted, SubmittedRun
from tickwheel_operator.gateway.backend import Leadership

PATH = "/v1/tasks/shops/shop-sync/runs"


async def accept(command):
    return Submitted(
        request=command.request,
        runs=[
            SubmittedRun(run_id=f"run-{index}", created=index == 0, state=RunState.PENDING)
            for index, _ in enumerate(command.runs)
        ],
    )


@pytest.mark.parametrize("body", [None, b"", b"{}", b'{"runs":[]}', b'{"runs":[{}]}'])
async def test_an_empty_request_asks_for_one_run_now(body):
    backend = ScriptedBackend(accept)
    async with serving(backend) as (caller, _):
        status, answer, _ = await caller.post(PATH, body)
    assert (status, answer) == (200, {"runs": [{"run": "run-0", "created": True, "state": "Pending"}]})
    (command,) = backend.commands
    assert (command.namespace, command.name) == ("shops", "shop-sync")
    assert (command.runs[0].scheduled_ms, command.runs[0].parameters) == (NOW_MS, b"")


async def test_runs_keep_their_order_keys_and_parameters():
    backend = ScriptedBackend(accept)
    runs = [
        {"idempotencyKey": "order-4711", "parameters": {"shop": "北", "n": 1.0}, "scheduledMs": 5},
        {"parameters": {}},
    ]
    async with serving(backend) as (caller, _):
        _, answer, _ = await caller.post(PATH, {"runs": runs})
    first, second = backend.commands[0].runs
    assert (first.key, first.scheduled_ms) == ("order-4711", 5)
    assert first.parameters == b'{"shop":"\\u5317","n":1.0}'
    assert second.parameters == b""
    assert [run["created"] for run in answer["runs"]] == [True, False]


async def test_the_epoch_is_an_instant_like_any_other():
    backend = ScriptedBackend(accept)
    async with serving(backend) as (caller, _):
        await caller.post(PATH, {"runs": [{"scheduledMs": 0}, {"scheduledMs": -62_135_596_800_000}]})
    (command,) = backend.commands
    assert [run.scheduled_ms for run in command.runs] == [0, -62_135_596_800_000]


async def test_each_run_without_a_key_gets_one_of_its_own():
    backend = ScriptedBackend(accept)
    async with serving(backend) as (caller, _):
        for _ in range(2):
            await caller.post(PATH, {"runs": [{}, {}, {}]})
    keys = [[run.key for run in command.runs] for command in backend.commands]
    assert len({key for drawn in keys for key in drawn}) == 6
    assert [len({key.split(".")[0] for key in drawn}) for drawn in keys] == [1, 1], "one random part for a request"


@pytest.mark.parametrize(
    ("reason", "status", "name"),
    [
        (RefusalReason.NO_SUCH_TASK, 404, "no-such-task"),
        (RefusalReason.NO_SUCH_RUN, 404, "no-such-run"),
        (RefusalReason.BACKLOG_FULL, 429, "backlog-full"),
        (RefusalReason.NOT_READY, 503, "not-ready"),
    ],
)
async def test_each_refusal_of_the_engine_has_its_problem(reason, status, name):
    async def refuse(command):
        return CommandRefused(request=command.request, reason=reason, detail="the engine's own words")

    async with serving(ScriptedBackend(refuse)) as (caller, _):
        got, problem, headers = await caller.post(PATH)
    assert (got, problem["status"], problem["type"]) == (status, status, f"urn:tickwheel:problem:{name}")
    assert problem["detail"] == "the engine's own words"
    assert ("Retry-After" in headers) == (status in (429, 503))


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"runs": [{}] * 1_001}, "runs: must be an array of at most 1,000 in length"),
        (
            {"runs": [{}, {"idempotencyKey": "k" * 201}]},
            "runs[1].idempotencyKey: must be a string of at most 200 in length",
        ),
        ({"runs": [{"parameters": [1]}]}, "runs[0].parameters: must be an object, not an array"),
        (
            {"runs": [{"scheduledMs": -62_135_596_800_001}]},
            "runs[0].scheduledMs: must be an integer of at least -62,135,596,800,000",
        ),
        (
            {"runs": [{"scheduledMs": 253_402_300_800_000}]},
            "runs[0].scheduledMs: must be an integer of at most 253,402,300,799,999",
        ),
    ],
)
async def test_what_is_out_of_bounds_is_named_with_its_path(body, detail):
    backend = ScriptedBackend(accept)
    async with serving(backend) as (caller, _):
        status, problem, _ = await caller.post(PATH, body)
    assert (status, problem["detail"]) == (400, detail)
    assert backend.commands == []


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        (
            PATH,
            {"runs": [{}, {"delay": "60s"}]},
            "runs[1].delay: is not a field of this request; allowed are "
            "idempotencyKey, parameters, scheduledMs, delayMs, onExpiry",
        ),
        (
            PATH,
            {"parameters": {"shop": "north"}},
            "parameters: is not a field of this request; allowed are runs",
        ),
        (
            "/v1/tasks/shops/shop-sync/backfills",
            {"fromMs": 0, "toMs": 1, "max_parallel": 1},
            "max_parallel: is not a field of this request; allowed are "
            "fromMs, toMs, maxParallel, idempotencyKey, parameters",
        ),
    ],
)
async def test_a_misspelt_field_is_refused_with_those_that_are_allowed(path, body, detail):
    backend = ScriptedBackend(accept)
    async with serving(backend) as (caller, _):
        status, problem, _ = await caller.post(path, body)
    assert (status, problem["detail"]) == (400, detail)
    assert backend.commands == []


async def test_parameters_have_the_names_that_their_handler_wants():
    backend = ScriptedBackend(accept)
    async with serving(backend) as (caller, _):
        status, _, _ = await caller.post(PATH, {"runs": [{"parameters": {"delay": "60s"}}]})
    assert status == 200


async def test_parameters_may_have_64_kib():
    backend = ScriptedBackend(accept)
    async with serving(backend) as (caller, _):
        fits, _, _ = await caller.post(PATH, {"runs": [{"parameters": {"a": "x" * (65_536 - 8)}}]})
        over, problem, _ = await caller.post(PATH, {"runs": [{"parameters": {"a": "x" * (65_536 - 7)}}]})
    assert (fits, over) == (200, 413)
    assert "runs[0].parameters" in problem["detail"]


async def test_an_escaped_slash_in_a_name_does_not_make_another_path():
    backend = ScriptedBackend(accept)
    async with serving(backend) as (caller, _):
        status, _, _ = await caller.post("/v1/tasks/shops/a%2Fb/runs")
        deeper, _, _ = await caller.post("/v1/tasks/shops/a/b/runs")
    assert (status, deeper, backend.commands) == (400, 404, [])


async def test_a_follower_takes_no_submissions():
    backend = ScriptedBackend(accept, leadership=Leadership(is_leader=False, leader_url="http://other:1"))
    async with serving(backend) as (caller, _):
        status, problem, _ = await caller.post(PATH)
    assert (status, problem["leader"]) == (421, "http://other:1")
