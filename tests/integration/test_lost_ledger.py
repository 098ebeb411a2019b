"""The operator's ledger is deleted under its tasks and workers, as with its namespace: what the statuses know stays."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from tests.integration.installation import (
    apply,
    custom_object,
    get,
)
from tests.integration.processes import Crew
from tests.integration.soak.account import read_records
from tests.integration.soak.scenario import HANDLERS, until

from tickwheel_cluster import Access


def test_work_that_was_finished_before_the_ledger_was_lost_does_not_run_again(cluster: Access, tmp_path: Path) -> None:
    crew = Crew.installed(cluster, tmp_path, "lost-ledger")
    namespace, system = crew.namespace, crew.system
    apply(
        cluster,
        custom_object("WorkerPool", namespace, "work", {"slots": 4}),
        _task(namespace, "done", {"once": {"at": "2026-01-01T00:00:00Z"}}),
        _task(namespace, "ticks", {"fixedRate": "1s"}, misfire={"policy": "FireAll"}),
    )
    records = {"TICKWHEEL_TEST_RECORDS": str(tmp_path)}
    with crew:
        # Given a `once` that has ended and a task that fires, both shown in their statuses.
        first = crew.operator("first")
        crew.worker("w-0", pool="work", handlers=HANDLERS, environment=records)
        until("the once to end", lambda: _counters(cluster, namespace, "done").get("succeeded") == 1)
        until("some runs", lambda: _counters(cluster, namespace, "ticks").get("succeeded", 0) >= 3)

        # When the ledger and the Lease go while nobody leads, and an operator is installed again.
        first.kill()
        before = get(cluster, "ScheduledTask", namespace, "ticks")["status"]
        wipe(cluster, system)
        second = crew.operator("second")

        # Then what had ended stays ended, the counters go on, and it is said loudly.
        until("counters to go on", lambda: _succeeded(cluster, namespace) > before["counters"]["succeeded"] + 2)
        assert _counters(cluster, namespace, "done")["succeeded"] == 1
        done = get(cluster, "ScheduledTask", namespace, "done")
        assert _ready(done)["reason"] == "Ended"
        runs = [r.run for r in read_records(tmp_path) if r.what == "begin"]
        assert sum(run.startswith(done["metadata"]["uid"]) for run in runs) == 1
        ticks = get(cluster, "ScheduledTask", namespace, "ticks")["metadata"]["uid"]
        settled = [run for run in runs if run.startswith(ticks) and _instant(run) <= _milliseconds(before)]
        assert len(settled) == len(set(settled)), "an instant that was settled ran again"
        assert second.metrics()["tickwheel_ledger_recovered_tasks"] == 2
        assert "the ledger is empty, so an earlier one was lost" in second.log.read_text()
        until("Events", lambda: _warned(cluster, namespace) == {"done", "ticks"})
        until("the Lease's Event", lambda: _warned(cluster, system) == {"tickwheel-partition-0"})


def test_running_workers_go_on_under_the_next_ledger(cluster: Access, tmp_path: Path) -> None:
    crew = Crew.installed(cluster, tmp_path, "next-ledger")
    namespace, system = crew.namespace, crew.system
    apply(
        cluster,
        custom_object("WorkerPool", namespace, "work", {"slots": 4}),
        _task(namespace, "long", {"once": {"at": "2026-01-01T00:00:00Z"}}, handler="slow", parameters={"seconds": 600}),
        _task(namespace, "ticks", {"fixedRate": "1s"}),
    )
    records = {"TICKWHEEL_TEST_RECORDS": str(tmp_path)}
    with crew:
        # Given a worker that has seen a later epoch, and is at work when the ledger is lost.
        crew.operator("zeroth").wait_ready()
        until("the first to lead", lambda: get(cluster, "LedgerSegment", system)["items"])
        crew.operators[0].kill()
        first = crew.operator("first")
        worker = crew.worker("w-0", pool="work", handlers=HANDLERS, environment=records)
        until(
            "the status to show the long run", lambda: _last_run(cluster, namespace, "long").get("state") == "Running"
        )
        until("some runs", lambda: _succeeded(cluster, namespace) >= 3)
        first.kill()
        before = _succeeded(cluster, namespace)
        wipe(cluster, system)

        # When an operator is installed again, then the same process works on, and what it was at is begun again.
        crew.operator("second")
        until("the worker to go on", lambda: _succeeded(cluster, namespace) > before + 2)
        long = get(cluster, "ScheduledTask", namespace, "long")["metadata"]["uid"]
        until("the long run to begin again", lambda: _begun(tmp_path, long) == 2)
        assert worker.alive
        assert "the operator's ledger is not the one of before" in worker.log.read_text()
        assert len(list(tmp_path.glob("w-0-*.jsonl"))) == 1


def _last_run(cluster: Access, namespace: str, name: str) -> dict[str, Any]:
    last: dict[str, Any] = get(cluster, "ScheduledTask", namespace, name).get("status", {}).get("lastRun", {})
    return last


def _begun(folder: Path, uid: str) -> int:
    return sum(r.what == "begin" and r.run.startswith(uid) for r in read_records(folder))


def wipe(cluster: Access, system: str) -> None:
    """Delete what the operator keeps in its namespace."""
    for path in (
        f"/apis/tickwheel.io/v1alpha1/namespaces/{system}/ledgersegments",
        f"/apis/coordination.k8s.io/v1/namespaces/{system}/leases",
    ):
        cluster.request("DELETE", path)
    until("an empty namespace", lambda: not get(cluster, "LedgerSegment", system)["items"])


def _counters(cluster: Access, namespace: str, name: str) -> dict[str, int]:
    status = get(cluster, "ScheduledTask", namespace, name).get("status", {})
    counters: dict[str, int] = status.get("counters", {})
    return counters


def _succeeded(cluster: Access, namespace: str) -> int:
    return _counters(cluster, namespace, "ticks").get("succeeded", 0)


def _ready(task: dict[str, Any]) -> dict[str, Any]:
    return next(c for c in task["status"]["conditions"] if c["type"] == "Ready")


def _instant(run: str) -> int:
    return int(run.rpartition(".")[2])


def _milliseconds(status: dict[str, Any]) -> int:
    return round(datetime.fromisoformat(status["settledTime"]).timestamp() * 1000)


def _warned(cluster: Access, namespace: str) -> set[str]:
    events = cluster.request("GET", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
    return {event["regarding"]["name"] for event in events if event["reason"] == "LedgerLost"}


def _task(namespace: str, name: str, trigger: dict[str, Any], **more: Any) -> dict[str, Any]:
    return custom_object(
        "ScheduledTask", namespace, name, {"trigger": trigger, "pool": "work", "handler": "quick"} | more
    )
