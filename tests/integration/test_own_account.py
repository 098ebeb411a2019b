"""What the operator's own ServiceAccount may do with Deployments and pods, beyond what RBAC can say. That the operator
itself can do its work under these policies is shown by all other tests: they install them, too."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.installation import OPERATOR_ACCOUNT, apply, create_namespace, install_operator
from tests.integration.soak.scenario import until

from tickwheel_cluster import Access, find_binaries

SYSTEM = "own-system"
NAMESPACE = "own-shop"
COST = "controller.kubernetes.io/pod-deletion-cost"
Run = Callable[..., str]


@pytest.fixture(scope="module")
def as_operator(cluster: Access) -> Run:
    """kubectl with the operator's token; what it said: nothing went wrong, or the refusal."""
    install_operator(cluster, SYSTEM)
    create_namespace(cluster, NAMESPACE)
    config = cluster.service_account_kubeconfig(SYSTEM, OPERATOR_ACCOUNT)
    kubectl = [str(find_binaries() / "kubectl"), f"--kubeconfig={config}", "-n", NAMESPACE]

    def run(*arguments: str, body: dict[str, Any] | None = None) -> str:
        text = json.dumps(body) if body is not None else None
        done = subprocess.run([*kubectl, *arguments], input=text, capture_output=True, text=True, timeout=60)
        return done.stderr if done.returncode else ""

    apply(cluster, a_deployment("probe"))
    # The API server learns of policies by a watch.
    until(
        "the policies to be at work",
        lambda: "the operator of Tickwheel may" in run("annotate", "deployment", "probe", "a=b"),
    )
    return run


def a_deployment(name: str, owner: str = "", **pod: Any) -> dict[str, Any]:
    labels = {"app": name}
    metadata: dict[str, Any] = {"name": name, "namespace": NAMESPACE, "labels": labels}
    if owner:
        metadata["labels"] = {**labels, "tickwheel.io/pool": owner}
        metadata["ownerReferences"] = [
            {"apiVersion": "tickwheel.io/v1alpha1", "kind": "WorkerPool", "name": owner, "uid": "u", "controller": True}
        ]
    spec = {"containers": [{"name": "worker", "image": "shop:1"}], **pod}
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


def a_pod(name: str, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels}
    # Admission, which is not on here, gives each pod an account.
    spec = {"serviceAccountName": "default", "containers": [{"name": "worker", "image": "shop:1"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def test_it_may_make_and_change_and_delete_a_pools_deployment(as_operator: Run) -> None:
    mine = a_deployment("mine-workers", owner="mine")
    assert as_operator("create", "-f", "-", body=mine) == ""
    assert as_operator("annotate", "deployment", "mine-workers", "a=b") == ""
    assert as_operator("delete", "deployment", "mine-workers", "--wait=false") == ""


def test_it_may_not_make_a_deployment_that_no_pool_owns_or_that_has_another_name(as_operator: Run) -> None:
    said = "may only write the Deployment <pool>-workers that a WorkerPool owns"
    assert said in as_operator("create", "-f", "-", body=a_deployment("free"))
    assert said in as_operator("create", "-f", "-", body=a_deployment("kube-proxy", owner="shop"))


def test_it_may_not_touch_a_deployment_of_somebody_else(cluster: Access, as_operator: Run) -> None:
    apply(cluster, a_deployment("others-workers"))
    assert "may not change or delete" in as_operator("delete", "deployment", "others-workers")
    taken = a_deployment("others-workers", owner="others")
    apply_it = ("apply", "--server-side", "--force-conflicts", "--field-manager=tickwheel-operator", "-f", "-")
    assert "may not change or delete" in as_operator(*apply_it, body=taken)


@pytest.mark.parametrize(
    "pod",
    [
        {"hostNetwork": True},
        {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]},
        {"containers": [{"name": "worker", "image": "x", "securityContext": {"privileged": True}}]},
    ],
)
def test_it_may_not_make_pods_that_reach_into_the_node(as_operator: Run, pod: dict[str, Any]) -> None:
    body = a_deployment("node-workers", owner="node", **pod)
    assert "may not make pods that reach into the node" in as_operator("create", "-f", "-", body=body)


def test_of_a_pools_pods_it_may_change_the_deletion_cost_and_of_others_nothing(
    cluster: Access, as_operator: Run
) -> None:
    worker = a_pod("worker", **{"tickwheel.io/pool": "shop"})
    worker["metadata"]["annotations"] = {"note": "kept"}
    apply(cluster, worker, a_pod("stranger"))
    assert as_operator("annotate", "pod", "worker", f"{COST}=-5") == ""
    assert as_operator("annotate", "pod", "worker", f"{COST}-") == ""
    only = "may only change the annotation controller.kubernetes.io/pod-deletion-cost"
    assert only in as_operator("annotate", "pod", "stranger", f"{COST}=-5")
    assert only in as_operator("annotate", "pod", "worker", "other=x")
    assert only in as_operator("annotate", "pod", "worker", "--overwrite", "note=changed")
    assert only in as_operator("annotate", "pod", "worker", "note-")
    assert only in as_operator("label", "pod", "worker", "a=b")
    image = '{"spec":{"containers":[{"name":"worker","image":"evil"}]}}'
    assert only in as_operator("patch", "pod", "worker", "-p", image)
