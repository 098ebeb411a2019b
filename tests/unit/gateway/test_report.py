"""`POST /v1/report`: conversion and limits."""

from __future__ import annotations

import pytest
from tests.unit.gateway.scripted import NOW_MS, WORKER, ScriptedBackend, serving

from tickwheel_operator.engine.messages import FailedAttempt, Reported


async def test_a_report_becomes_a_command_with_every_list():
    async def fence(command):
        return Reported(request=command.request, fenced=[3], cancel=[9])

    backend = ScriptedBackend(fence)
    async with serving(backend) as (caller, _):
        status, answer, _ = await caller.post(
            "/v1/report",
            {
                "worker": WORKER,
                "succeeded": [1, 2],
                "results": [{"token": 3, "value": {"count": 1.50}}, {"token": 4, "value": None}],
                "failed": [{"token": 5, "type": "ValueError", "message": "m", "traceback": "t", "timeout": True}],
                "returned": [6],
                "renew": [7, 9],
                "progress": [{"token": 7, "fraction": 1.5, "message": "half"}],
                "leaving": True,
            },
        )
    assert NOW_MS * 1_000 - 20_000_000 < answer.pop("receivedUs") <= NOW_MS * 1_000
    assert (status, answer) == (
        200,
        {"epoch": 7, "ledger": "ours", "answeredUs": NOW_MS * 1_000, "fenced": [3], "cancel": [9]},
    )
    (command,) = backend.commands
    assert (command.succeeded, command.returned, command.renew) == ([1, 2], [6], [7, 9])
    assert command.results == [(3, b'{"count": 1.5}'), (4, b"null")]
    assert command.failed == [FailedAttempt(token=5, error_type="ValueError", message="m", traceback="t", timeout=True)]
    assert command.progress == [(7, 1.0, "half")]
    assert command.leaving
    assert command.worker.instance == "i-1"


async def test_long_error_texts_are_cut_with_a_note_and_the_tracebacks_end_is_kept():
    backend = ScriptedBackend()
    error = {"token": 5, "type": "E" * 300, "message": "m" * 5_000, "traceback": "x" * 20_000 + "THE END"}
    async with serving(backend) as (caller, _):
        await caller.post("/v1/report", {"worker": WORKER, "failed": [error]})
    (failed,) = backend.commands[0].failed
    assert len(failed.error_type) == 200
    assert len(failed.message) == 2_000 and failed.message.startswith("mmm") and failed.message.endswith("left out]")
    assert len(failed.traceback) == 8_000 and failed.traceback.endswith("THE END")
    assert failed.traceback.startswith("[12,007 characters and more left out]\n")


@pytest.mark.parametrize(("size", "status"), [(65_534, 200), (65_535, 413)])
async def test_a_result_may_have_64_kib(size, status):
    backend = ScriptedBackend()
    body = {"worker": WORKER, "results": [{"token": 1, "value": 0}, {"token": 2, "value": "x" * size}]}
    async with serving(backend) as (caller, _):
        got, problem, _ = await caller.post("/v1/report", body)
    assert got == status
    if status == 413:
        assert "results[1].value" in problem["detail"] and "65,536" in problem["detail"]
        assert backend.commands == []


async def test_ten_thousand_tokens_are_the_most_over_all_lists():
    backend = ScriptedBackend()
    async with serving(backend) as (caller, _):
        full, _, _ = await caller.post(
            "/v1/report", {"worker": WORKER, "succeeded": list(range(6_000)), "renew": list(range(4_000))}
        )
        over, problem, _ = await caller.post(
            "/v1/report", {"worker": WORKER, "succeeded": list(range(6_000)), "renew": list(range(4_001))}
        )
        one_list, other, _ = await caller.post("/v1/report", {"worker": WORKER, "renew": list(range(10_001))})
    assert (full, over, one_list) == (200, 400, 400)
    assert "10,001 tokens together" in problem["detail"]
    assert other["detail"] == "renew: must be an array of at most 10,000 in length"


@pytest.mark.parametrize(
    "value", [b'"\xff"', b"1e999", b'"\\ud800"', b'"\\udc00x"', b"{", b"[1,]", b"[" * 5_000 + b"]" * 5_000]
)
async def test_a_result_that_readers_could_not_decode_is_refused(value):
    backend = ScriptedBackend()
    worker = b'{"namespace":"a","pool":"b","name":"c","instance":"d"}'
    async with serving(backend) as (caller, _):
        status, problem, _ = await caller.post(
            "/v1/report", b'{"worker":' + worker + b',"results":[{"token":1,"value":' + value + b"}]}"
        )
    assert (status, problem["type"]) == (400, "urn:tickwheel:problem:bad-request")
    assert backend.commands == []
