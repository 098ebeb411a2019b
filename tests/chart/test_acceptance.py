"""The API server takes all that the chart renders, whatever the values are, and Pod Security lets the pods in."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tests.chart.release import Release
from tests.chart.rendering import NAMESPACE, only, render
from tests.e2e.kube import Kube

FOREIGN = ("cert-manager.io/", "monitoring.coreos.com/")
"""Kinds of others' CRDs."""

COMBINATIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "namespaced": {"watchNamespaces": ["shops", "billing"]},
    "one replica": {"replicas": 1, "updateStrategy": {"type": "Recreate", "rollingUpdate": None}},
    "names": {"fullnameOverride": "jobs", "nameOverride": "scheduler", "commonLabels": {"team": "platform"}},
    "certificates of cert-manager": {
        "tls": {"mode": "certManager", "additionalNames": ["jobs.example.com", "10.0.0.1"]}
    },
    "a certificate of one's own": {"tls": {"mode": "existingSecret", "existingSecret": {"name": "own", "caKey": ""}}},
    "network policies": {
        "networkPolicy": {
            "enabled": True,
            "workers": [{"namespaceSelector": {"matchLabels": {"team": "shops"}}}],
            "apiServer": [{"ipBlock": {"cidr": "10.0.0.1/32"}}],
        }
    },
    "monitoring": {
        "metrics": {
            "service": {"annotations": {"a": "b"}},
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "prometheusRule": {"enabled": True},
            "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Jobs"}},
        }
    },
    "pods": {
        "imagePullSecrets": [{"name": "pull"}],
        "image": {"digest": "sha256:" + "0" * 64},
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
        "priorityClassName": "system-cluster-critical",
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "topologySpreadConstraints": [],
        "nodeSelector": {},
        "extraArgs": ["--log-level=DEBUG"],
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "serviceAccount": {"annotations": {"example.com/role": "jobs"}},
        "gateway": {"service": {"type": "LoadBalancer", "annotations": {"a": "b"}, "labels": {"c": "d"}}},
    },
    "next to nothing": {
        "rbac": {"create": False, "aggregate": False},
        "serviceAccount": {"create": False, "name": "mine"},
        "test": {"enabled": False},
        "metrics": {"service": {"enabled": False}},
    },
    "objects of one's own": {
        "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "extra"}, "data": {"a": "b"}}]
    },
}


@pytest.fixture(scope="module")
def ready(kube: Kube) -> Kube:
    """The CRDs, and the namespaces that dry runs ask for."""
    release = Release(kube)
    release.install()
    release.uninstall()
    for name in ("shops", "billing"):
        kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return kube


@pytest.mark.parametrize("name", COMBINATIONS)
def test_the_api_server_takes_everything_that_is_rendered(ready: Kube, name: str) -> None:
    objects = [o for o in render(COMBINATIONS[name]) if not o["apiVersion"].startswith(FOREIGN)]
    if name != "defaults":  # large, and the same whatever the values are
        objects = [o for o in objects if not o["kind"].startswith(("CustomResourceDefinition", "ValidatingAdmission"))]
    for each in objects:
        # Objects without a namespace go where Helm puts them.
        if "namespace" not in each["metadata"] and each["kind"] == "ConfigMap":
            each["metadata"]["namespace"] = NAMESPACE
    ready.kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts", "-f", "-",
        stdin=yaml.safe_dump_all(objects),
    )  # fmt: skip


def test_an_unknown_field_would_be_refused(ready: Kube) -> None:
    deployment = only(render(), "Deployment")
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 3
    with pytest.raises(AssertionError, match="terminationGracePeriod"):
        ready.kubectl(
            "apply",
            "--server-side",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            "-",
            stdin=yaml.safe_dump(deployment),
        )


def _pods(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The operator's pod, and that of `helm test`."""
    objects = render(values)
    template = only(objects, "Deployment")["spec"]["template"]
    operator = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator"}, "spec": template["spec"]}
    test = only(objects, "Pod")
    return [operator, {**test, "metadata": {"name": "test"}}]


@pytest.fixture(scope="module")
def restricted(kube: Kube) -> str:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "restricted", "labels": labels}})
    return "restricted"


@pytest.mark.parametrize("name", ["defaults", "pods", "a certificate of one's own"])
def test_the_pods_pass_pod_security_restricted(kube: Kube, restricted: str, name: str) -> None:
    for pod in _pods(COMBINATIONS[name]):
        pod["spec"].pop("priorityClassName", None)  # the API server alone makes no classes
        kube.kubectl("create", "--dry-run=server", "-n", restricted, "-f", "-", stdin=yaml.safe_dump(pod))


def test_a_pod_that_may_be_root_would_not_pass(kube: Kube, restricted: str) -> None:
    [pod, _] = _pods({"podSecurityContext": {"runAsNonRoot": False}})
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        kube.kubectl("create", "--dry-run=server", "-n", restricted, "-f", "-", stdin=yaml.safe_dump(pod))
