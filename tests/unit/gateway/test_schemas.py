"""The schemas of handlers that workers register with their pulls."""

from __future__ import annotations

import pytest
from tests.unit.gateway.scripted import NOW_MS, PULL, ScriptedBackend, serving

from tickwheel_operator.handlers.known import HandlerSchema

NAMED = {**PULL, "schemasHash": "h1", "waitMs": 20_000}
SCHEMAS = {"shop-sync": {"parameters": {"type": "object"}, "result": {"type": "integer"}}}


async def test_a_worker_is_asked_for_unknown_schemas_at_once_and_never_again():
    backend = ScriptedBackend()
    async with serving(backend) as (caller, _):
        _, first, _ = await caller.post("/v1/pull", NAMED)
        _, second, _ = await caller.post("/v1/pull", {**NAMED, "schemas": SCHEMAS})
        _, third, _ = await caller.post("/v1/pull", NAMED)
    assert first["sendSchemas"] is True
    assert "sendSchemas" not in second and "sendSchemas" not in third
    assert [command.until_ms - NOW_MS for command in backend.commands] == [0, 20_000, 20_000]
    assert {command.worker.schemas for command in backend.commands} == {"h1"}
    assert backend.schemas["shops", "shops", "h1"] == {
        "shop-sync": HandlerSchema(b'{"type": "object"}', b'{"type": "integer"}')
    }


async def test_a_worker_without_schemas_is_not_asked():
    async with serving(ScriptedBackend()) as (caller, _):
        _, answer, _ = await caller.post("/v1/pull", PULL)
    assert "sendSchemas" not in answer


@pytest.mark.parametrize(
    ("schemas", "status", "said"),
    [
        ({"other": {}}, 400, "schemas.other: is not one of `handlers`"),
        (
            {"shop-sync": {"parameters": {"description": "x" * 16_384}}},
            413,
            "schemas.shop-sync.parameters: the JSON has",
        ),
        ({"shop-sync": {"result": {"enum": [10**400]}}}, 400, "schemas.shop-sync.result: has an integer beyond"),
        ({"shop-sync": []}, 400, "schemas"),
    ],
)
async def test_schemas_out_of_bounds_are_refused_by_name(schemas, status, said):
    backend = ScriptedBackend()
    async with serving(backend) as (caller, _):
        code, problem, _ = await caller.post("/v1/pull", {**NAMED, "schemas": schemas})
    assert code == status
    assert problem["detail"].startswith(said)
    assert not backend.schemas


async def test_schemas_that_are_too_large_together_are_refused():
    names = [f"h{number}" for number in range(9)]
    large = {name: {"parameters": {"description": "x" * 15_000}} for name in names}
    backend = ScriptedBackend()
    async with serving(backend) as (caller, _):
        code, problem, _ = await caller.post("/v1/pull", {**NAMED, "handlers": names, "schemas": large})
    assert code == 413
    assert problem["detail"].startswith("schemas: the JSON has 135,")
    assert not backend.schemas
