"""`POST /v1/pull`: conversion, waiting, and what ends a wait."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.gateway.scripted import NOW_MS, PULL, WORKER, ScriptedBackend, delivery, serving, task

from tickwheel_operator.engine.messages import CommandRefused, Pulled, RefusalReason, Reported, WorkerKey
from tickwheel_operator.gateway.backend import Leadership, NotLeader


async def forever(command):
    await asyncio.Event().wait()


async def test_a_pull_becomes_a_command_with_all_that_the_worker_said():
    backend = ScriptedBackend()
    async with serving(backend) as (caller, _):
        body = {
            **PULL,
            "slots": 16,
            "received": 41,
            "epoch": 7,
            "load": {"cpu": 0.5, "memory": 0.25, "cpuMillis": 500, "memoryBytes": 1000},
            "draining": True,
            "waitMs": 1500,
            "labels": {"gpu": "true"},
            "aFieldOfTheFuture": 1,
        }
        status, _, _ = await caller.post("/v1/pull", body)
    assert status == 200
    (command,) = backend.commands
    assert command.worker.key == WorkerKey("shops", "shops", "shops-0")
    assert (command.worker.instance, command.worker.handlers) == ("i-1", ("shop-sync",))
    assert (command.worker.slots, command.worker.draining, command.worker.labels) == (16, True, {"gpu": "true"})
    assert (command.worker.cpu, command.worker.memory) == (0.5, 0.25)
    assert (command.free, command.received, command.until_ms) == (4, 41, NOW_MS + 1500)


@pytest.mark.parametrize(
    ("wait_ms", "waits"), [(-5, 0), (0, 0), (20_000, 20_000), (30_000, 30_000), (30_001, 30_000), (10**30, 30_000)]
)
async def test_the_wait_is_cut_to_what_is_allowed(wait_ms, waits):
    backend = ScriptedBackend()
    async with serving(backend) as (caller, _):
        await caller.post("/v1/pull", {**PULL, "waitMs": wait_ms})
    assert backend.commands[0].until_ms == NOW_MS + waits


async def test_deliveries_become_leases_with_the_parameters_as_they_are():
    async def two(command):
        return Pulled(
            request=command.request,
            deliveries=[
                delivery(42, parameters=b'{"a": [1, 2.50],  "\\u00e9":"\xc3\xa9"}', attempt=3),
                delivery(43, task=task(timeout_ms=600_000, grace_ms=5_000), parameters=b""),
            ],
            cancel=[40],
        )

    async with serving(ScriptedBackend(two), lease_ms=9_000) as (caller, _):
        status, answer, headers = await caller.post("/v1/pull", PULL)
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert (answer["epoch"], answer["nowMs"], answer["cancel"]) == (7, NOW_MS, [40])
    first, second = answer["leases"]
    assert first == {
        "token": 42,
        "run": "run-42",
        "task": "shops/shop-sync",
        "handler": "sync",
        "scheduledMs": NOW_MS,
        "attempt": 3,
        "leaseMs": 9_000,
        "graceMs": 10_000,
        "parameters": {"a": [1, 2.5], "é": "é"},
    }
    assert (second["timeoutMs"], second["graceMs"], second["parameters"]) == (600_000, 5_000, {})


async def test_a_dropped_connection_cancels_the_waiting_pull():
    backend = ScriptedBackend(forever)
    async with serving(backend) as (caller, _):
        pull = asyncio.create_task(caller.post("/v1/pull", PULL))
        await backend.called.wait()
        pull.cancel()
        async with asyncio.timeout(30):
            while not backend.cancelled:
                await asyncio.sleep(0.01)


async def test_stopping_answers_waiting_pulls_empty():
    backend = ScriptedBackend(forever)
    async with serving(backend) as (caller, gateway):
        pull = asyncio.create_task(caller.post("/v1/pull", PULL))
        await backend.called.wait()
        await gateway.stop()
        status, answer, _ = await pull
    assert (status, answer) == (200, {"epoch": 7, "ledger": "ours", "nowMs": NOW_MS})
    assert backend.cancelled == 1


async def test_stopping_lets_a_report_end():
    gate = asyncio.Event()

    async def slow(command):
        await gate.wait()
        return Reported(request=command.request, fenced=[], cancel=[])

    backend = ScriptedBackend(slow)
    async with serving(backend) as (caller, gateway):
        report = asyncio.create_task(caller.post("/v1/report", {"worker": WORKER, "succeeded": [1]}))
        await backend.called.wait()
        stop = asyncio.create_task(gateway.stop())
        await asyncio.sleep(0.05)
        gate.set()
        await stop
        status, answer, _ = await report
    assert (status, answer["epoch"]) == (200, 7)


async def test_a_follower_names_the_leader():
    follower = Leadership(is_leader=False, epoch=7, leader_url="https://other:8443")
    backend = ScriptedBackend(leadership=follower)
    async with serving(backend) as (caller, _):
        status, problem, headers = await caller.post("/v1/pull", PULL)
    assert status == 421
    assert problem["leader"] == "https://other:8443"
    assert problem["type"] == "urn:tickwheel:problem:not-leader"
    assert headers["Content-Type"] == "application/problem+json"
    assert backend.commands == []


async def test_a_leader_that_is_deposed_during_the_call_says_so():
    async def deposed(command):
        raise NotLeader("")

    async with serving(ScriptedBackend(deposed)) as (caller, _):
        status, problem, headers = await caller.post("/v1/pull", PULL)
    assert (status, headers["Retry-After"]) == (421, "1")
    assert "no leader is known" in problem["detail"]


async def test_a_worker_that_has_seen_a_higher_epoch_is_told_that_it_passed():
    backend = ScriptedBackend()
    async with serving(backend) as (caller, _):
        status, problem, _ = await caller.post("/v1/pull", {**PULL, "epoch": 8})
        same, _, _ = await caller.post("/v1/pull", {**PULL, "epoch": 7})
    assert (status, same) == (409, 200)
    assert problem["type"] == "urn:tickwheel:problem:epoch-passed"
    assert "epoch 8" in problem["detail"] and "epoch 7" in problem["detail"]


async def test_a_worker_of_another_ledger_is_told_so_whatever_epoch_it_has_seen():
    backend = ScriptedBackend()
    async with serving(backend) as (caller, _):
        for epoch in (1, 8):
            status, problem, _ = await caller.post("/v1/pull", {**PULL, "epoch": epoch, "ledger": "lost"})
            assert (status, problem["type"]) == (409, "urn:tickwheel:problem:ledger-replaced")
            assert "ledger lost" in problem["detail"] and "ledger ours" in problem["detail"]
        report = {"worker": PULL["worker"], "ledger": "lost", "succeeded": [5]}
        status, problem, _ = await caller.post("/v1/report", report)
        assert (status, problem["type"]) == (409, "urn:tickwheel:problem:ledger-replaced")
        status, answer, _ = await caller.post("/v1/pull", {**PULL, "epoch": 7, "ledger": "ours"})
        assert (status, answer["ledger"]) == (200, "ours")
    assert len(backend.commands) == 1


async def test_a_host_that_never_answers_gives_not_ready_and_its_call_is_cancelled():
    backend = ScriptedBackend(forever)
    async with serving(backend, answer_grace_ms=50) as (caller, _):
        status, problem, headers = await caller.post("/v1/pull", {**PULL, "waitMs": 0})
    assert (status, headers["Retry-After"], backend.cancelled) == (503, "1", 1)
    assert problem["type"] == "urn:tickwheel:problem:not-ready"


async def test_a_refusal_of_the_engine_becomes_a_problem():
    async def refuse(command):
        return CommandRefused(request=command.request, reason=RefusalReason.NOT_READY, detail="the catalog is loading")

    async with serving(ScriptedBackend(refuse)) as (caller, _):
        status, problem, headers = await caller.post("/v1/pull", PULL)
    assert (status, problem["detail"], headers["Retry-After"]) == (503, "the catalog is loading", "1")


async def test_an_error_of_the_host_gives_a_document_without_its_text():
    async def broken(command):
        raise RuntimeError("a secret of the inside")

    async with serving(ScriptedBackend(broken)) as (caller, _):
        status, problem, _ = await caller.post("/v1/pull", PULL)
    assert (status, problem["type"]) == (500, "urn:tickwheel:problem:internal")
    assert "secret" not in str(problem)
