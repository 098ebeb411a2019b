"""Runs that must stop, on a real API server with real processes: what is cancelled has stopped before the run says so,
and what replaces it begins then."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.integration.installation import (
    apply,
    create_namespace,
    custom_object,
    edit,
    get,
    install_operator,
    service_account,
)
from tests.integration.processes import Crew, WorkerProcess
from tests.integration.soak.account import Record, read_records
from tests.integration.soak.scenario import until

from tickwheel_cluster import Access

NAMESPACE = "stopping-shop"
SYSTEM = "stopping-system"
HANDLERS = Path(__file__).with_name("stubborn_handlers.py")


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return custom_object(kind, NAMESPACE, name, spec)


@pytest.fixture(scope="module")
def crew(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    install_operator(cluster, SYSTEM)
    create_namespace(cluster, NAMESPACE)
    account = service_account(NAMESPACE, "worker")
    tasks = [
        _object("ScheduledTask", name, {
            "pool": "shop", "handler": name, "delivery": {"gracePeriod": "300ms"}, "retry": {"limit": 0},
        })
        for name in ("patient", "endless", "deaf", "swallowing")
    ]  # fmt: skip
    apply(cluster, account, _object("WorkerPool", "shop", {"slots": 1}), *tasks)
    with Crew(cluster, tmp_path_factory.mktemp("stopping"), system=SYSTEM, namespace=NAMESPACE) as crew:
        crew.operator("operator").wait_ready()
        yield crew


def _worker(crew: Crew, name: str, records: Path, slots: int = 1) -> WorkerProcess:
    return crew.worker(
        name, pool="shop", account="worker", handlers=HANDLERS, slots=slots,
        environment={"TICKWHEEL_TEST_RECORDS": str(records), "TICKWHEEL_DRAIN_TIMEOUT": "2"},
    )  # fmt: skip


def _condition(crew: Crew, run: str, kind: str) -> dict[str, str]:
    status = get(crew.cluster, "TaskRun", NAMESPACE, run).get("status", {})
    return next((c for c in status.get("conditions", ()) if c["type"] == kind), {})


def _cancel(body: dict[str, Any]) -> None:
    body["spec"]["cancel"] = True


@pytest.mark.parametrize(
    ("handler", "says", "survives"),
    [
        ("patient", "", True),
        ("endless", "interrupted", True),
        ("deaf", "its process was killed", True),
        ("swallowing", "worker was lost", False),
    ],
)
def test_a_handler_is_stopped_however_stubborn_it_is_and_the_run_says_how(
    crew: Crew, tmp_path: Path, handler: str, says: str, survives: bool
) -> None:
    worker = _worker(crew, f"w-{handler}", tmp_path)
    apply(crew.cluster, _object("TaskRun", f"run-{handler}", {"task": handler}))
    until("the handler to begin", lambda: read_records(tmp_path))  # its worker's only slot is taken now

    edit(crew.cluster, "TaskRun", NAMESPACE, f"run-{handler}", _cancel)

    until("the run to end", lambda: _condition(crew, f"run-{handler}", "Succeeded").get("status") == "False")
    status = get(crew.cluster, "TaskRun", NAMESPACE, f"run-{handler}")["status"]
    assert status["state"] == "Cancelled"
    told = _condition(crew, f"run-{handler}", "Succeeded")["message"]
    assert "spec.cancel" in told
    assert says in told
    if handler in ("patient", "endless"):
        assert [record.what for record in read_records(tmp_path)] == ["begin", "end"]
    if survives:
        assert worker.terminate() == 0
    else:
        until("the worker to end itself", lambda: not worker.alive)
        assert worker.process is not None
        assert worker.process.returncode == 70
        assert "swallowing" in worker.log_tail()


def test_who_deletes_the_taskrun_of_a_running_handler_stops_it(crew: Crew, tmp_path: Path) -> None:
    worker = _worker(crew, "w-deleted", tmp_path)
    apply(crew.cluster, _object("TaskRun", "run-deleted", {"task": "patient"}))
    until("the handler to begin", lambda: read_records(tmp_path))

    path = f"/apis/tickwheel.io/v1alpha1/namespaces/{NAMESPACE}/taskruns/run-deleted"
    crew.cluster.request("DELETE", path)

    # By itself it would end after a minute.
    until("it to stop", lambda: [record.what for record in read_records(tmp_path)] == ["begin", "end"], 30)
    assert worker.terminate() == 0


def test_a_run_that_replaces_another_begins_when_that_has_stopped(crew: Crew, tmp_path: Path) -> None:
    workers = [_worker(crew, f"w-replace-{number}", tmp_path, slots=4) for number in (0, 1)]
    spec = {
        "trigger": {"fixedRate": "500ms"}, "pool": "shop", "handler": "patient", "parameters": {"linger": 0.2},
        "concurrency": {"policy": "Replace"}, "delivery": {"gracePeriod": "60s"},
    }  # fmt: skip
    apply(crew.cluster, _object("ScheduledTask", "replaced", spec))
    until("some to be replaced", lambda: len([r for r in read_records(tmp_path) if r.what == "end"]) >= 4)
    edit(crew.cluster, "ScheduledTask", NAMESPACE, "replaced", lambda body: body["spec"].update(suspend=True))
    for worker in workers:
        worker.kill()

    spans: dict[str, list[Record]] = {}
    for record in read_records(tmp_path):
        spans.setdefault(record.run, []).append(record)
    executions = sorted(spans.values(), key=lambda records: records[0].monotonic_s)
    assert len(executions) >= 4
    for before, after in pairwise(executions):
        assert before[-1].what == "end", "it has stopped"
        assert before[-1].monotonic_s <= after[0].monotonic_s, "and only then the next began"
