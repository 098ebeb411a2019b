"""Twenty tasks that fire each second and five that run long, on a pool of real pods, with the ledger as the witness."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.e2e.kube import Kube, is_ready, until
from tests.e2e.timeline import Lease, Timeline, now_ms

__all__ = ["PERIOD_MS", "Load", "namespace_objects", "pool", "task"]

PERIOD_MS = 1_000
_QUICK = [f"quick-{number:02d}" for number in range(20)]
_SLOW = [f"slow-{number}" for number in range(5)]
_HANDLERS = (Path(__file__).parent / "handlers.py").read_text()


def namespace_objects(namespace: str, account: str = "worker") -> list[dict[str, Any]]:
    """The namespace, the ServiceAccount of its workers and their handlers."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": namespace}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "handlers", "namespace": namespace},
            "data": {"handlers.py": _HANDLERS},
        },
    ]


def pool(namespace: str, name: str, image: str, *, account: str = "worker", **spec: Any) -> dict[str, Any]:
    """A WorkerPool whose pods run the handlers of the ConfigMap."""
    container = {
        "name": "worker",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["/handlers/handlers.py"],
        "resources": {"requests": {"cpu": "10m", "memory": "48Mi"}},
        "volumeMounts": [{"name": "handlers", "mountPath": "/handlers", "readOnly": True}],
    }
    template = {
        "spec": {
            "serviceAccountName": account,
            "containers": [container],
            "volumes": [{"name": "handlers", "configMap": {"name": "handlers"}}],
        }
    }
    return {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "WorkerPool",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"slots": 8, "template": template, "access": {"serviceAccounts": [account]}, **spec},
    }


def task(namespace: str, name: str, pool: str, handler: str, period: str | None, **spec: Any) -> dict[str, Any]:
    trigger = {"trigger": {"fixedRate": period}} if period else {}
    return {
        "apiVersion": "tickwheel.io/v1alpha1",
        "kind": "ScheduledTask",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"pool": pool, "handler": handler, "misfire": {"policy": "FireAll"}, **trigger, **spec},
    }


class Load:
    """The work of one namespace."""

    def __init__(self, kube: Kube, timeline: Timeline, namespace: str, image: str) -> None:
        self.kube = kube
        self.timeline = timeline
        self.namespace = namespace
        self.image = image

    def start(self) -> None:
        """Apply it, and wait until all workers serve it."""
        namespace = self.namespace
        self.kube.kubectl("delete", "namespace", namespace, "--ignore-not-found")
        spread = {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"tickwheel.io/pool": "load"}},
        }
        workers = pool(namespace, "load", self.image, replicas=3, drainTimeout="15s")
        workers["spec"]["template"]["spec"]["topologySpreadConstraints"] = [spread]
        quick = [task(namespace, name, "load", "quick", "1s") for name in _QUICK]
        slow = [task(namespace, name, "load", "slow", "5s", parameters={"seconds": 3}) for name in _SLOW]
        self.kube.apply(*namespace_objects(namespace), workers, *quick, *slow)
        until("three workers", lambda: len(self.workers()) == 3, 90)
        until("work to be done", lambda: self.timeline.ended() > 60, 60)

    def workers(self) -> list[str]:
        """Names of the pool's pods that are ready."""
        pods = self.kube.items("pods", "-n", self.namespace, "-l", "tickwheel.io/pool=load")
        return [pod["metadata"]["name"] for pod in pods if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]

    def node_of(self, pod: str) -> str:
        return str(self.kube.get("pod", pod, "-n", self.namespace)["spec"]["nodeName"])

    def busy_worker(self) -> tuple[str, list[Lease]]:
        """A worker that runs something long just now, and what."""

        def busy() -> tuple[str, list[Lease]] | None:
            for worker in self.workers():
                if held := self.slow_on(worker):
                    return worker, held
            return None

        return until("a worker that runs a slow task", busy, 60, 0.1)

    def slow_on(self, worker: str) -> list[Lease]:
        """The slow attempts that have just begun on the worker: time enough to hit them."""
        book = self.timeline.read()
        since_ms = now_ms() - 1_000
        slow = {task.uid for task in book.tasks.values() if task.name.startswith("slow-")}
        return [
            lease
            for lease in self.timeline.open_on(worker)
            if book.runs[lease.run].task in slow and lease.at_ms > since_ms
        ]

    def faults(self) -> list[str]:
        """What the ledger says went wrong: nothing may be lost or fired twice. What is only late gets a minute."""
        deadline = time.monotonic() + 60
        while (found := self._faults_now()) and time.monotonic() < deadline:
            time.sleep(1)
        return found

    def _faults_now(self) -> list[str]:
        return [
            *self.timeline.instant_faults(_QUICK, PERIOD_MS),
            *self.timeline.instant_faults(_SLOW, 5 * PERIOD_MS),
        ]
