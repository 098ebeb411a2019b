"""What Helm would install, by the API alone: the CRDs, and the operator's identity as the chart renders it."""

from __future__ import annotations

import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from tests.chart.rendering import render

from tickwheel_cluster import Access

__all__ = [
    "OPERATOR_ACCOUNT",
    "SYSTEM_NAMESPACE",
    "apply",
    "create_namespace",
    "custom_object",
    "edit",
    "get",
    "install",
    "install_operator",
    "may_submit",
    "service_account",
    "wait_until_served",
]

_ROOT = Path(__file__).resolve().parents[2]
SYSTEM_NAMESPACE = "tickwheel-system"
OPERATOR_ACCOUNT = "tickwheel-operator"

_PATHS = {
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
    "Pod": "/api/v1/namespaces/{namespace}/pods",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases",
    "ScheduledTask": "/apis/tickwheel.io/v1alpha1/namespaces/{namespace}/scheduledtasks",
    "WorkerPool": "/apis/tickwheel.io/v1alpha1/namespaces/{namespace}/workerpools",
    "Calendar": "/apis/tickwheel.io/v1alpha1/namespaces/{namespace}/calendars",
    "TaskRun": "/apis/tickwheel.io/v1alpha1/namespaces/{namespace}/taskruns",
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments",
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps",
    "ValidatingAdmissionPolicy": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
    "LedgerSegment": "/apis/tickwheel.io/v1alpha1/namespaces/{namespace}/ledgersegments",
}


def install(cluster: Access) -> None:
    """CRDs, namespace, ServiceAccount and roles: all that ships, and nothing more."""
    for path in sorted((_ROOT / "crds").glob("*.yaml")):
        apply(cluster, *yaml.safe_load_all(path.read_text()))
    create_namespace(cluster, SYSTEM_NAMESPACE)
    apply(cluster, *_permissions(SYSTEM_NAMESPACE))
    wait_until_served(cluster)


def wait_until_served(cluster: Access) -> None:
    """Wait until the API server serves all our kinds: after they were applied, and after it was restarted."""
    deadline = time.monotonic() + 60
    while True:
        crds = cluster.request("GET", _PATHS["CustomResourceDefinition"])["items"]
        missing = [crd["metadata"]["name"] for crd in crds if not (_is_established(crd) and _is_served(cluster, crd))]
        if not missing:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"not served: {missing}")
        time.sleep(0.1)


def install_operator(cluster: Access, namespace: str) -> None:
    """An operator's ServiceAccount and roles in a namespace of its own: exactly what the chart has.

    An operator there has a Lease and a ledger that no other test touches.
    """
    create_namespace(cluster, namespace)
    apply(cluster, *_permissions(namespace))


def _permissions(namespace: str) -> list[dict[str, Any]]:
    """The ServiceAccount, roles and bindings of a release in the namespace that serves the whole cluster, and the
    policies that bind the account to what it owns."""
    values = {
        "serviceAccount": {"name": OPERATOR_ACCOUNT},
        "rbac": {"aggregate": False},
        # Not looked at here, and large.
        "crds": {"enabled": False},
        "test": {"enabled": False},
    }
    kinds = {"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
    return [
        document
        for document in render(values, namespace=namespace)
        if document["kind"] in kinds or document["metadata"]["name"].endswith(".own.tickwheel.io")
    ]


def create_namespace(cluster: Access, name: str) -> None:
    apply(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


def custom_object(kind: str, namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """One of our kinds, as it is applied."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "tickwheel.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def service_account(namespace: str, name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


def may_submit(namespace: str, account: str) -> list[dict[str, Any]]:
    """The role and its binding that let a ServiceAccount of the namespace start runs there."""
    rbac = "rbac.authorization.k8s.io"
    metadata = {"name": "submit", "namespace": namespace}
    rules = [{"apiGroups": ["tickwheel.io"], "resources": ["taskruns"], "verbs": ["create"]}]
    return [
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "submit"},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
        },
    ]  # fmt: skip


def apply(cluster: Access, *objects: dict[str, Any] | None) -> None:
    """Create each object; one that exists is left as it is. Raises AssertionError with the server's message."""
    for document in objects:
        if document is None:
            continue
        path = _path(document["kind"], document["metadata"].get("namespace", "default"))
        try:
            cluster.request("POST", path, document)
        except urllib.error.HTTPError as error:
            if error.code != 409:
                name = document["metadata"]["name"]
                raise AssertionError(f"{document['kind']} {name}: {error.read().decode()}") from error


def get(cluster: Access, kind: str, namespace: str, name: str = "") -> Any:
    """One object, or the list of them."""
    return cluster.request("GET", _path(kind, namespace) + (f"/{name}" if name else ""))


def edit(cluster: Access, kind: str, namespace: str, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """`kubectl edit`: read it, `change` it, write it back; anew where somebody else wrote first."""
    path = f"{_path(kind, namespace)}/{name}"
    while True:
        document = cluster.request("GET", path)
        change(document)
        try:
            cluster.request("PUT", path, document)
            return
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise AssertionError(f"{kind} {name}: {error.read().decode()}") from error


def _path(kind: str, namespace: str) -> str:
    return _PATHS[kind].format(namespace=namespace)


def _is_established(crd: dict[str, Any]) -> bool:
    conditions = crd.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def _is_served(cluster: Access, crd: dict[str, Any]) -> bool:
    """Whether it can be listed: for a moment after it is established, the API server answers 429."""
    spec = crd["spec"]
    if spec["group"] != "tickwheel.io":
        return True
    try:
        cluster.request("GET", f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}?limit=1")
    except urllib.error.HTTPError as error:
        if error.code not in (404, 429, 503):
            raise
        return False
    return True
