"""A real cluster with the product on it, installed as its users install it: by Helm, from images.

`tickwheel_cluster.choose_nodes` finds the cluster (a given kubeconfig, kind, or the local provider); the images are
those that `make image` makes. Used by the tests here and by `benchmarks/cluster`.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from images import build
from tests.e2e.kube import Kube, is_ready, until
from tests.integration.soak.tail import LedgerTail

from tickwheel_cluster import NodeCluster, choose_nodes, find_binaries, find_tool
from tickwheel_cluster.provider import GIVEN

__all__ = ["NAMESPACE", "NEXT", "OPERATOR", "RELEASE", "ROOT", "Installation", "installed_product"]

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "tickwheel-system"
RELEASE = "tickwheel"
OPERATOR = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=operator"
"""Selects the operator's pods."""
NEXT = "0.1.1"
"""The tag of the same contents as a next version."""
# A second or two to find out that a leader is gone, where a whole node is lost with it.
TUNED = {"leaseDuration": "3s", "renewDeadline": "2s", "retryPeriod": "400ms"}


@dataclass
class Installation:
    """The operator as Helm installed it."""

    cluster: Any
    kube: Kube
    tail: LedgerTail
    """The ledger, all of it."""
    worker_image: str
    next_worker_image: str
    """The same contents under another name: what a new version of a user's workers looks like."""
    namespace: str = NAMESPACE
    deployment: str = RELEASE

    def leader(self) -> str:
        """The pod that leads."""

        def holder() -> str:
            leases = self.kube.items("leases", "-n", self.namespace)
            names = [lease["spec"].get("holderIdentity") or "" for lease in leases]
            return next((name.rpartition("_")[0] for name in names if name), "")

        return until("a leader", holder, 60)

    def wait_ready(self) -> None:
        def ready() -> bool:
            status = self.kube.get("deployment", self.deployment, "-n", self.namespace)["status"]
            return bool(status.get("availableReplicas") == status.get("replicas") == 2 and self.leader())

        until("both replicas of the operator", ready, 90)

    def nodes_ready(self) -> bool:
        nodes = self.kube.items("nodes")
        return all(
            condition["status"] == "True"
            for node in nodes
            for condition in node["status"]["conditions"]
            if condition["type"] == "Ready"
        )

    def kill(self, namespace: str, pod: str, container: str) -> None:
        """SIGKILL to the container's first process, as a crash would be: nothing is told to anybody."""
        statuses = self.kube.get("pod", pod, "-n", namespace)["status"]["containerStatuses"]
        identity = next(status["containerID"] for status in statuses if status["name"] == container)
        os.kill(_first_process(identity.rpartition("/")[2]), signal.SIGKILL)

    def spread(self, namespace: str, selector: str, count: int) -> None:
        """Delete pods, one at a time, until both nodes have one of the `count` pods that is ready."""

        def placed() -> dict[str, str] | None:
            pods = self.kube.items("pods", "-n", namespace, "-l", selector)
            # The one in the place of a deleted pod may not even be made yet.
            if len(pods) < count or any("deletionTimestamp" in pod["metadata"] or not is_ready(pod) for pod in pods):
                return None
            return {pod["spec"]["nodeName"]: pod["metadata"]["name"] for pod in pods}

        for _ in range(6):
            nodes = until(f"pods of {selector}", placed, 90)
            if len(nodes) == len(self.cluster.nodes):
                return
            self.kube.kubectl("delete", "pod", next(iter(nodes.values())), "-n", namespace)
        raise AssertionError(f"the pods of {selector} stay on one node")

    def roll(self, *values: str) -> None:
        """`helm upgrade` with these values changed, and wait until it is through."""
        self.kube.helm(
            "upgrade", RELEASE, str(ROOT / "charts" / "tickwheel"), "--namespace", self.namespace, "--reuse-values",
            *(word for value in values for word in ("--set", value)), "--wait", "--timeout", "180s",
        )  # fmt: skip

    def logs(self, *arguments: str) -> str:
        """Of all replicas of the operator."""
        return self.kube.kubectl("logs", "-n", self.namespace, "-l", OPERATOR, "--tail=2000", *arguments)


@contextmanager
def installed_product(folder: Path) -> Iterator[Installation]:
    """A cluster with the operator on it, as `make image` and Helm install it from this checkout."""
    with choose_nodes(folder / "cluster") as cluster:
        kube = Kube(cluster.admin_kubeconfig, find_binaries() / "kubectl", find_tool("helm"), folder / "kubectl-cache")
        images = _load(cluster, folder / "images")
        _remove_former(kube, given=bool(os.environ.get(GIVEN)))
        values = [f"election.{name}={value}" for name, value in TUNED.items()]
        kube.helm(
            "upgrade", "--install", RELEASE, str(ROOT / "charts" / "tickwheel"), "--namespace", NAMESPACE,
            "--create-namespace", "--set", ",".join(values), "--wait", "--timeout", "180s",
        )  # fmt: skip
        # From its first segment on: a few minutes later a checkpoint may have replaced it.
        with LedgerTail(cluster, NAMESPACE) as tail:
            installation = Installation(cluster, kube, tail, images["worker"], images["next"])
            installation.wait_ready()
            yield installation


def _remove_former(kube: Kube, *, given: bool) -> None:
    """On a cluster that was kept: the witness has to see the ledger from its first segment."""
    if RELEASE in kube.helm("list", "--namespace", NAMESPACE, "--short").split():
        if given:
            # Somebody's tasks may hang on it.
            raise AssertionError(f"{GIVEN} names a cluster that has the release {RELEASE} already: uninstall it first")
        kube.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
        kube.kubectl("delete", "ledgersegments.tickwheel.io", "--all", "--namespace", NAMESPACE)


def _load(cluster: NodeCluster, folder: Path) -> dict[str, str]:
    """Build this checkout's images and give them to the nodes; their references."""
    folder.mkdir(parents=True, exist_ok=True)
    built = build(("operator", "worker"), output=folder)
    following = build(("operator", "worker"), tag=NEXT, output=folder)
    for image in (*built.values(), *following.values()):
        if image.tar is not None:
            cluster.load_image(image.tar)
    return {"worker": built["worker"].reference, "next": following["worker"].reference}


def _first_process(container: str) -> int:
    """The oldest process of a container, on this machine."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if container in (folder / "cgroup").read_text():
                started = int(re.split(r"\) ", (folder / "stat").read_text())[1].split()[19])
                found.append((started, int(folder.name)))
        except OSError:
            continue  # it ended meanwhile
    if not found:
        pytest.skip("the cluster's containers are not processes of this machine")
    return min(found)[1]
