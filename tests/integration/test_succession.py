"""A worker's container restarts in its pod, and the end of the one before is told late: whose end is it?"""

from __future__ import annotations

import time
from datetime import UTC, datetime
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


def test_the_late_end_of_a_container_does_not_take_the_work_of_the_one_after_it(
    cluster: Access, tmp_path: Path
) -> None:
    crew = Crew.installed(cluster, tmp_path, "succession")
    namespace = crew.namespace
    apply(
        cluster,
        custom_object("WorkerPool", namespace, "work", {"slots": 4}),
        custom_object(
            "ScheduledTask", namespace, "slow",
            {
                "pool": "work", "handler": "slow", "parameters": {"seconds": 8},
                "delivery": {"guarantee": "AtMostOnce"},
            },
        ),
        {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "w-0", "namespace": namespace, "labels": {"tickwheel.io/pool": "work"}},
            "spec": {"serviceAccountName": "worker", "containers": [{"name": "worker", "image": "x"}]},
        },
    )  # fmt: skip
    records = {"TICKWHEEL_TEST_RECORDS": str(tmp_path)}
    with crew:
        operator = crew.operator("operator")
        operator.wait_ready()
        started = _second()
        first = crew.worker("w-0", pool="work", handlers=HANDLERS, environment=records)
        _report(cluster, namespace, {"running": {"startedAt": started}}, {})
        until("the first to take work", lambda: "taking work" in first.log.read_text())
        time.sleep(1.1)  # kubelet counts in seconds

        # Given a second process in the pod, at work on a run that is delivered at most once.
        first.kill()
        ended = {"terminated": {"exitCode": 137, "containerID": "containerd://1", "finishedAt": _second()}}
        running = {"running": {"startedAt": _second()}}
        crew.worker("w-0", pool="work", handlers=HANDLERS, environment=records)
        apply(cluster, custom_object("TaskRun", namespace, "once", {"task": "slow"}))
        until("the second to begin", lambda: [r.what for r in read_records(tmp_path)] == ["begin"])

        # When the end of the first is told now, alone and then with the start of the second.
        _report(cluster, namespace, ended, {})
        time.sleep(1)
        _report(cluster, namespace, running, ended)

        # Then its work is not taken for lost.
        until("the run to end", lambda: _state(cluster, namespace) in ("Succeeded", "Failed"))
        assert _state(cluster, namespace) == "Succeeded"
        assert operator.metrics()['tickwheel_attempt_failures_total{reason="Lost"}'] == 0

        # And the end of the second is its end.
        apply(cluster, custom_object("TaskRun", namespace, "twice", {"task": "slow"}))
        until("it to begin", lambda: len(read_records(tmp_path)) == 3)
        crew.workers[-1].pause()
        time.sleep(1.1)
        gone = {"terminated": {"exitCode": 137, "containerID": "containerd://2", "finishedAt": _second()}}
        _report(cluster, namespace, gone, ended)
        until("the loss", lambda: operator.metrics()['tickwheel_attempt_failures_total{reason="Lost"}'] == 1)


def _second() -> str:
    """Now, as kubelet writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _report(cluster: Access, namespace: str, state: dict[str, Any], last_state: dict[str, Any]) -> None:
    """Write the pod's status as kubelet would."""
    container = {
        "name": "worker", "image": "x", "imageID": "", "ready": "running" in state, "restartCount": 1,
        "state": state, "lastState": last_state,
    }  # fmt: skip
    path = f"/api/v1/namespaces/{namespace}/pods/w-0"
    pod = cluster.request("GET", path)
    pod["status"] = {"phase": "Running", "containerStatuses": [container]}
    cluster.request("PUT", f"{path}/status", pod)


def _state(cluster: Access, namespace: str) -> str:
    return str(get(cluster, "TaskRun", namespace, "once").get("status", {}).get("state"))
