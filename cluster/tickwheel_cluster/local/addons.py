"""What a cluster is expected to have beyond nodes: DNS, and the metrics that `kubectl top` shows.

Both run on the first node, which has the control plane, so that losing the second loses neither. Their label
`app.kubernetes.io/part-of: cluster` tells them from what is tested.
"""

from __future__ import annotations

from typing import Any

__all__ = ["COREDNS_IMAGE", "METRICS_IMAGE", "manifests"]

COREDNS_IMAGE = "tickwheel.io/coredns:1"
METRICS_IMAGE = "tickwheel.io/metrics-server:1"
_NAMESPACE = "kube-system"
_COREFILE = """.:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        ttl 5
    }
    cache 5
    loadbalance
}
"""


def manifests(node: str, dns_address: str) -> list[dict[str, Any]]:
    """All objects, for `kubectl apply`. `node` is the first node."""
    return [*_dns(node, dns_address), *_metrics(node)]


def _dns(node: str, address: str) -> list[dict[str, Any]]:
    config = {"name": "config", "configMap": {"name": "coredns"}}
    container = {
        "name": "coredns",
        "image": COREDNS_IMAGE,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
    }
    read = ["list", "watch"]
    return [
        *_account(
            "coredns",
            [
                {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": read},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
            ],
        ),
        _object("v1", "ConfigMap", "coredns", data={"Corefile": _COREFILE}),
        _deployment("coredns", node, container, [config]),
        _object(
            "v1",
            "Service",
            "kube-dns",
            spec={
                "clusterIP": address,
                "selector": {"k8s-app": "coredns"},
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
                ],
            },
        ),
    ]


def _metrics(node: str) -> list[dict[str, Any]]:
    container = {
        "name": "metrics-server",
        "image": METRICS_IMAGE,
        "imagePullPolicy": "Never",
        "args": [
            "--cert-dir=/tmp",
            "--secure-port=10250",
            "--kubelet-insecure-tls",
            "--kubelet-preferred-address-types=InternalIP",
            "--metric-resolution=10s",
            "--kubelet-request-timeout=5s",
        ],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 10250, "scheme": "HTTPS"}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "10m", "memory": "48Mi"}},
    }
    account = {"kind": "ServiceAccount", "name": "metrics-server", "namespace": _NAMESPACE}
    return [
        *_account(
            "metrics-server",
            [
                {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
                {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
            ],
        ),
        _binding("metrics-server:auth-delegator", "system:auth-delegator", account),
        {
            **_object("rbac.authorization.k8s.io/v1", "RoleBinding", "metrics-server-auth-reader"),
            "roleRef": _role("Role", "extension-apiserver-authentication-reader"),
            "subjects": [account],
        },
        _deployment("metrics-server", node, container, [{"name": "tmp", "emptyDir": {}}]),
        _object(
            "v1",
            "Service",
            "metrics-server",
            spec={"selector": {"k8s-app": "metrics-server"}, "ports": [{"port": 443, "targetPort": 10250}]},
        ),
        _object(
            "apiregistration.k8s.io/v1",
            "APIService",
            "v1beta1.metrics.k8s.io",
            namespaced=False,
            spec={
                "group": "metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,
                "service": {"name": "metrics-server", "namespace": _NAMESPACE},
            },
        ),
        {
            # So that `kubectl top` works for those who may view.
            **_object("rbac.authorization.k8s.io/v1", "ClusterRole", "metrics-reader", namespaced=False),
            "rules": [{"apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"], "verbs": ["get", "list"]}],
        },
    ]


def _account(name: str, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    account = {"kind": "ServiceAccount", "name": name, "namespace": _NAMESPACE}
    return [
        _object("v1", "ServiceAccount", name),
        {
            **_object("rbac.authorization.k8s.io/v1", "ClusterRole", f"cluster:{name}", namespaced=False),
            "rules": rules,
        },
        _binding(f"cluster:{name}", f"cluster:{name}", account),
    ]


def _binding(name: str, role: str, account: dict[str, str]) -> dict[str, Any]:
    return {
        **_object("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", name, namespaced=False),
        "roleRef": _role("ClusterRole", role),
        "subjects": [account],
    }


def _role(kind: str, name: str) -> dict[str, str]:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}


def _deployment(name: str, node: str, container: dict[str, Any], volumes: list[dict[str, Any]]) -> dict[str, Any]:
    labels = {"k8s-app": name, "app.kubernetes.io/part-of": "cluster"}
    spec = {
        "serviceAccountName": name,
        "nodeSelector": {"kubernetes.io/hostname": node},
        "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "containers": [container],
        "volumes": volumes,
    }
    return _object(
        "apps/v1",
        "Deployment",
        name,
        spec={
            "replicas": 1,
            "selector": {"matchLabels": {"k8s-app": name}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    )


def _object(version: str, kind: str, name: str, *, namespaced: bool = True, **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": _NAMESPACE} if namespaced else {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}
