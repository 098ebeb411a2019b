"""Handlers know their types: what real workers register, on a real API server with the operator's own account."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.installation import apply, create_namespace, get, install_operator
from tests.integration.processes import PATIENT_LEASE, Crew
from tests.integration.soak.scenario import until

from tickwheel_cluster import Access

NAMESPACE = "schemas-shop"
SYSTEM = "schemas-system"
BEFORE = """
from typing import Literal
from tickwheel import task

@task("sync")
def sync(ctx, shop: str, region: Literal["north", "south"] = "north") -> dict[str, int]:
    return {"count": 1}

@task("open")
def open_(ctx, **anything):
    return None
"""
AFTER = BEFORE.replace("shop: str,", "shop: int | str,")
SYNC = {
    "name": "sync",
    "parameters": {
        "type": "object",
        "properties": {"shop": {"type": "string"}, "region": {"type": "string", "enum": ["north", "south"]}},
        "required": ["shop"],
        "additionalProperties": False,
    },
    "result": {"type": "object", "additionalProperties": {"type": "integer"}},
}
EITHER = {"anyOf": [{"type": "integer"}, {"type": "string"}]}


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "tickwheel.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def _account(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": NAMESPACE}}


@pytest.fixture(scope="module")
def shop(cluster: Access) -> Access:
    install_operator(cluster, SYSTEM)
    create_namespace(cluster, NAMESPACE)
    pool = {"slots": 4, "silence": "120s", "access": {"serviceAccounts": ["shop-worker"]}}
    apply(cluster, _account("shop-worker"), _object("WorkerPool", "shop", pool))
    return cluster


@pytest.fixture(scope="module")
def crew(shop: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    with Crew(shop, tmp_path_factory.mktemp("crew"), system=SYSTEM, namespace=NAMESPACE) as crew:
        crew.operator("leader", **PATIENT_LEASE)
        until("it to lead", lambda: get(shop, "LedgerSegment", SYSTEM)["items"])
        crew.operators[0].wait_ready()
        yield crew


def _worker(crew: Crew, name: str, text: str) -> Any:
    file = crew.folder / f"{name}.py"
    Path(file).write_text(text)
    return crew.worker(name, pool="shop", account="shop-worker", handlers=file, environment={})


def _handlers(cluster: Access) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = get(cluster, "WorkerPool", NAMESPACE, "shop").get("status", {}).get("handlers", [])
    return found


def test_a_pools_status_shows_what_its_workers_handlers_take_and_return(shop: Access, crew: Crew) -> None:
    _worker(crew, "w-0", BEFORE)
    open_ = {"name": "open", "parameters": {"type": "object", "properties": {}, "additionalProperties": True}}
    until("the schemas to be shown", lambda: _handlers(shop) == [open_, SYNC])


def test_during_a_rollout_the_newer_schema_is_shown_and_that_they_differ(shop: Access, crew: Crew) -> None:
    new = _worker(crew, "w-1", AFTER)
    until("both to be known", lambda: any(handler.get("differ") for handler in _handlers(shop)))
    open_, sync = _handlers(shop)
    assert "differ" not in open_
    assert sync["parameters"]["properties"]["shop"] == EITHER
    assert new.terminate() == 0
    until("the older to be shown again", lambda: _handlers(shop)[1:] == [SYNC])
