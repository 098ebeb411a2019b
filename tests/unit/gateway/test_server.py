"""Topology, health, the served document."""

from __future__ import annotations

import json

from tests.unit.gateway.scripted import TOKEN, ScriptedBackend, serving

from tickwheel_operator.gateway import openapi


async def test_the_topology_names_the_replicas():
    async with serving(ScriptedBackend()) as (caller, _):
        status, text, _ = await caller.get("/v1/topology", token=TOKEN)
        stranger, _, _ = await caller.get("/v1/topology")
    assert (status, stranger) == (200, 401)
    assert json.loads(text) == {
        "partitions": 1,
        "replicas": [{"url": "http://self:8080", "partitions": [0], "epoch": 7}],
    }


async def test_health_needs_no_token_and_readiness_gives_its_reason():
    reason = [None]
    async with serving(ScriptedBackend(), ready=lambda: reason[0]) as (caller, _):
        assert (await caller.get("/healthz"))[0] == 200
        assert (await caller.get("/readyz"))[0] == 200
        reason[0] = "the catalog is not synced"
        status, text, headers = await caller.get("/readyz")
    assert (status, headers["Retry-After"]) == (503, "1")
    assert json.loads(text)["detail"] == "the catalog is not synced"


async def test_the_gateway_serves_its_own_description():
    async with serving(ScriptedBackend()) as (caller, _):
        status, text, _ = await caller.get("/openapi.json")
    assert (status, text.encode()) == (200, openapi.document_json())
