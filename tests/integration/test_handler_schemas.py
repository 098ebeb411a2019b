"""Handlers know their types: what real workers register, on a real API server with the operator's own account."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.integration.caller import Answer, Caller
from tests.integration.installation import (
    apply,
    create_namespace,
    custom_object,
    get,
    install_operator,
    may_submit,
    service_account,
)
from tests.integration.processes import PATIENT_LEASE, Crew, WorkerProcess
from tests.integration.soak.scenario import until

from tickwheel_cluster import Access
from tickwheel_operator.cli.main import main

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


@pytest.fixture(scope="module")
def shop(cluster: Access) -> Access:
    install_operator(cluster, SYSTEM)
    create_namespace(cluster, NAMESPACE)
    pool = {"slots": 4, "silence": "120s", "access": {"serviceAccounts": ["shop-worker"]}}
    manual = {"pool": "shop", "handler": "sync", "parameters": {"shop": "a"}, "concurrency": {"policy": "Allow"}}
    apply(
        cluster,
        *(service_account(NAMESPACE, name) for name in ("shop-worker", "submitter")),
        *may_submit(NAMESPACE, "submitter"),
        custom_object("WorkerPool", NAMESPACE, "shop", pool),
        custom_object("ScheduledTask", NAMESPACE, "by-hand", manual),
    )
    return cluster


@pytest.fixture(scope="module")
def crew(shop: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    with Crew(shop, tmp_path_factory.mktemp("crew"), system=SYSTEM, namespace=NAMESPACE) as crew:
        crew.operator("leader", **PATIENT_LEASE)
        until("it to lead", lambda: get(shop, "LedgerSegment", SYSTEM)["items"])
        crew.operators[0].wait_ready()
        yield crew


def _worker(crew: Crew, name: str, text: str) -> WorkerProcess:
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


def _leave(shop: Access, new: WorkerProcess) -> None:
    """End the newer of two workers, once the status knows both: it is written some seconds late."""
    until("both to be known", lambda: any(handler.get("differ") for handler in _handlers(shop)))
    assert new.terminate() == 0
    until("the older to be alone", lambda: _handlers(shop)[1:] == [SYNC])


def _submit(shop: Access, crew: Crew, *runs: dict[str, Any]) -> Answer:
    token = shop.service_account_token(NAMESPACE, "submitter", audience="tickwheel")
    url = f"{crew.operators[0].url}/v1/tasks/{NAMESPACE}/by-hand/runs"
    return Caller(token).call("POST", url, {"runs": list(runs)}, timeout_s=60)


def test_a_submission_that_the_handler_does_not_take_is_refused_with_field_and_example(
    shop: Access, crew: Crew
) -> None:
    until("the schemas to be known", lambda: _handlers(shop)[1:] == [SYNC])
    fits = {"idempotencyKey": "fits", "parameters": {"region": "south"}}
    assert _submit(shop, crew, fits).status == 200, "the task's own `shop` counts"
    answer = _submit(shop, crew, fits, {"parameters": {"region": "east", "shop": "b"}})
    assert (answer.status, answer.problem) == (422, "invalid-parameters")
    assert answer.body["detail"] == (
        'runs[1].parameters.region: "east" is not one of "north" or "south". Handler sync takes: '
        'shop (string, required), region ("north" or "south"); for example {"shop":"..."}'
    )


def _lint(shop: Access, folder: Path, **spec: Any) -> Result:
    file = folder / "task.yaml"
    task = {"pool": "shop", "handler": "sync", "trigger": {"cron": "@daily"}, **spec}
    file.write_text(json.dumps(custom_object("ScheduledTask", NAMESPACE, "daily", task), indent=1))
    arguments = ["lint", str(file), "--cluster", "--kubeconfig", str(shop.admin_kubeconfig)]
    return CliRunner().invoke(main, arguments)


def test_lint_tells_what_live_workers_would_refuse_before_anybody_applies_it(
    shop: Access, crew: Crew, tmp_path: Path
) -> None:
    until("the schemas to be known", lambda: _handlers(shop)[1:] == [SYNC])
    fits = _lint(shop, tmp_path, parameters={"shop": "a"})
    assert (fits.exit_code, fits.stdout) == (0, "1 object in 1 file: no fault\n")
    refused = _lint(shop, tmp_path, parameters={"shop": "a", "region": "east"})
    assert refused.exit_code == 1
    assert 'spec.parameters.region: "east" is not one of "north" or "south". Handler sync takes: ' in refused.stdout
    later = _lint(shop, tmp_path, handler="report")
    assert later.exit_code == 0
    assert "spec.handler: 'report' is not registered by the live workers of pool shop" in later.stderr


def test_a_taskrun_that_the_handler_does_not_take_is_stalled_until_it_does(shop: Access, crew: Crew) -> None:
    apply(shop, custom_object("TaskRun", NAMESPACE, "number", {"task": "by-hand", "parameters": {"shop": 7}}))

    def status() -> dict[str, Any]:
        found: dict[str, Any] = get(shop, "TaskRun", NAMESPACE, "number").get("status", {})
        return found

    def stalled() -> dict[str, Any]:
        return next((found for found in status().get("conditions", ()) if found["type"] == "Stalled"), {})

    until("it to be stalled", lambda: stalled().get("status") == "True")
    assert stalled()["reason"] == "InvalidParameters"
    assert stalled()["message"].startswith('spec.parameters.shop: 7 is not of type "string". Handler sync')
    assert "runId" not in status()
    new = _worker(crew, "w-2", AFTER)  # takes numbers
    until("it to be made", lambda: status().get("runId"))
    _leave(shop, new)


def test_a_run_that_exists_is_answered_though_its_handler_changed(shop: Access, crew: Crew) -> None:
    number = {"idempotencyKey": "seven", "parameters": {"shop": 7}}
    new = _worker(crew, "w-3", AFTER)
    until("both to be known", lambda: any(handler.get("differ") for handler in _handlers(shop)))
    assert _submit(shop, crew, number).status == 200
    _leave(shop, new)
    assert _submit(shop, crew, number).body["runs"][0]["created"] is False
    assert _submit(shop, crew, {**number, "idempotencyKey": "eight"}).problem == "invalid-parameters"


def test_during_a_rollout_the_newer_schema_is_shown_and_that_they_differ(shop: Access, crew: Crew) -> None:
    new = _worker(crew, "w-1", AFTER)
    until("both to be known", lambda: any(handler.get("differ") for handler in _handlers(shop)))
    open_, sync = _handlers(shop)
    assert "differ" not in open_
    assert sync["parameters"]["properties"]["shop"] == EITHER
    _leave(shop, new)
