"""The Deployment of a WorkerPool: the user's pod template, and what makes its pods workers of the pool.

Pure: the reconciler applies what `deployment` makes, and `constraints` has accepted the template before. What is added
is listed in docs/workerpools.md. Invariant: equal pools give equal documents, and what the user set is never changed,
but for a termination grace too short for the pool's drain limit.

The Deployment is called `<pool>-workers`: a Deployment with the pool's own name is what a user has who moves an
existing application into a pool, and it must be able to run on meanwhile. No two pools share a name that way.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from tickwheel_operator.api import API_VERSION, WorkerPool

__all__ = [
    "CA_CONFIG_MAP",
    "CA_KEY",
    "FIELD_MANAGER",
    "MOUNT",
    "OWN_VARIABLES",
    "POOL_LABEL",
    "READY_PORT",
    "READY_PORT_VARIABLE",
    "VOLUME",
    "Surroundings",
    "deployment",
    "deployment_name",
    "selector",
    "worker_index",
]

FIELD_MANAGER = "tickwheel-operator"
POOL_LABEL = "tickwheel.io/pool"
CA_CONFIG_MAP = "tickwheel-ca"
"""In each namespace with a pool that has a template; the operator writes it."""
CA_KEY = "ca.crt"
VOLUME = "tickwheel"
MOUNT = "/var/run/tickwheel"
AUDIENCE = "tickwheel"
TOKEN_SECONDS = 3_600
GRACE_MARGIN_S = 30
"""Between the drain limit and the kill: to stop the handlers that were not done and to report the last results."""
DRAIN_COMMAND = ("python3", "-m", "tickwheel", "drain")
"""Passes SIGTERM on where the container's first process would not; an image without it loses nothing else."""
READY_PORT = 8459
"""Where a worker accepts connections once the gateway has accepted it, unless the template's environment says another
port (`READY_PORT_VARIABLE`)."""
READY_PORT_VARIABLE = "TICKWHEEL_READY_PORT"
_PROBE_S = 2
_NEVER = 2**31 - 1
"""Failed probes after which a container is restarted: a worker may wait for the operator for as long as it takes."""
MIN_READY_S = 10
"""A worker that connects and ends some seconds later must not count as good, or a rolling update would replace them
all."""

_RECOMMENDED = "app.kubernetes.io"
_TOOLS = (
    "argoproj.io",
    "cattle.io",
    "fluxcd.io",
    "helm.sh",
    "k14s.io",
    "k8s.io",
    "kubernetes.io",
    "pulumi.com",
    "tickwheel.io",
)
"""Domains, with all below them, whose labels and annotations of a pool stay with the pool; of `kubernetes.io` all but
the recommended labels."""

OWN_VARIABLES: Mapping[str, str] = {
    "TICKWHEEL_ENDPOINT": "it is the operator's gateway",
    "TICKWHEEL_POOL": "it is the pool's name",
    "TICKWHEEL_NAMESPACE": "it is the pool's namespace",
    "TICKWHEEL_WORKER_NAME": "it is the pod's name",
    "TICKWHEEL_TOKEN_FILE": "it is where the token is mounted",
    "TICKWHEEL_CA_FILE": "it is where the gateway's authority is mounted",
    "TICKWHEEL_SLOTS": "set spec.slots instead",
    "TICKWHEEL_DRAIN_TIMEOUT": "set spec.drainTimeout instead",
}
"""Set by the operator in the worker's container; a template that sets them is refused, for the reason given."""


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What the pods must know of the operator."""

    endpoint: str
    """URL of the gateway, as pods reach it."""
    has_ca: bool
    """There is a ConfigMap with the authority of the gateway's certificate. False: it speaks plain HTTP, or with a
    certificate that every system trusts."""


def deployment_name(pool: str) -> str:
    """The name of the pool's Deployment."""
    return f"{pool}-workers"


def selector(pool: str) -> str:
    """The label selector of the pool's pods, as the scale subresource has it."""
    return f"{POOL_LABEL}={pool}"


def worker_index(containers: list[dict[str, Any]]) -> int:
    """Which container is the worker: the one called `worker`, else the first."""
    return next((index for index, container in enumerate(containers) if container.get("name") == "worker"), 0)


def deployment(pool: WorkerPool, surroundings: Surroundings, replicas: int) -> dict[str, Any]:
    """The Deployment, for server-side apply. The pool has a template that `constraints.faults` accepts."""
    template, name = pool.spec.template, pool.metadata.name
    if template is None:
        raise ValueError(f"WorkerPool {name} has no template")
    labels = _labels(name)
    inherited = _passed_on(pool.metadata.annotations)
    metadata: dict[str, Any] = {"labels": labels}
    if template.metadata is not None:
        metadata["labels"] = {**labels, **template.metadata.labels, POOL_LABEL: name}
        if template.metadata.annotations:
            metadata["annotations"] = dict(template.metadata.annotations)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": deployment_name(name),
            "namespace": pool.metadata.namespace,
            "labels": {**_passed_on(pool.metadata.labels), **labels},
            **({"annotations": inherited} if inherited else {}),
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "WorkerPool",
                    "name": name,
                    "uid": pool.metadata.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {POOL_LABEL: name}},
            "minReadySeconds": MIN_READY_S,
            "progressDeadlineSeconds": math.ceil(pool.spec.progress_deadline.milliseconds / 1000),
            "revisionHistoryLimit": 3,
            # A new worker takes work before an old one drains: the pool never has fewer than it should.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
            "template": {"metadata": metadata, "spec": _pod(pool, template.spec, surroundings)},
        },
    }


def _passed_on(given: Mapping[str, str]) -> dict[str, str]:
    """The pool's labels or annotations that its Deployment gets: not those by which Kubernetes and tools know what is
    theirs. A tool that found its mark on the Deployment would take it for its own, and delete what is not in Git."""
    return {key: value for key, value in given.items() if not _is_a_tools(key)}


def _is_a_tools(key: str) -> bool:
    domain, slash, _ = key.rpartition("/")
    return bool(slash) and domain != _RECOMMENDED and any(f".{domain}".endswith(f".{tool}") for tool in _TOOLS)


def _labels(pool: str) -> dict[str, str]:
    return {
        POOL_LABEL: pool,
        "app.kubernetes.io/name": "tickwheel-worker",
        "app.kubernetes.io/instance": pool,
        "app.kubernetes.io/component": "worker",
        "app.kubernetes.io/managed-by": "tickwheel",
    }


def _pod(pool: WorkerPool, given: Mapping[str, Any], surroundings: Surroundings) -> dict[str, Any]:
    spec = copy.deepcopy(dict(given))
    containers = spec["containers"]
    _secure(spec)
    spec.setdefault("automountServiceAccountToken", False)
    grace_s = math.ceil(pool.spec.drain_timeout.milliseconds / 1000) + GRACE_MARGIN_S
    spec["terminationGracePeriodSeconds"] = max(grace_s, spec.get("terminationGracePeriodSeconds") or 0)
    spec["volumes"] = [*(spec.get("volumes") or ()), _volume(surroundings)]
    worker = containers[worker_index(containers)]
    worker["volumeMounts"] = [
        *(worker.get("volumeMounts") or ()),
        {"name": VOLUME, "mountPath": MOUNT, "readOnly": True},
    ]
    given_env = worker.get("env") or []
    taken = {variable.get("name") for variable in given_env}
    # Ours come first, so that the user's may refer to them: $(TICKWHEEL_WORKER_NAME).
    own = [variable for variable in _environment(pool, surroundings) if variable["name"] not in taken]
    worker["env"] = [*own, *given_env]
    _probe(worker)
    worker["lifecycle"] = {"preStop": {"exec": {"command": [*DRAIN_COMMAND]}}, **(worker.get("lifecycle") or {})}
    # What a worker that cannot start says becomes the pod's status, and so the pool's.
    worker.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")
    return spec


def _probe(worker: dict[str, Any]) -> None:
    """Have the pod ready once its worker is registered at the gateway.

    A startup probe: it ends with its first success, so it costs nothing afterwards, a worker that was ready stays ready
    while the operator is away, and the user's own readiness probe counts as well."""
    *_, port = (variable["value"] for variable in worker["env"] if variable.get("name") == READY_PORT_VARIABLE)
    probe = {"tcpSocket": {"port": int(port)}, "periodSeconds": _PROBE_S}
    if not worker.get("startupProbe"):
        worker["startupProbe"] = {**probe, "failureThreshold": _NEVER}
    elif not worker.get("readinessProbe"):
        worker["readinessProbe"] = probe


def _volume(surroundings: Surroundings) -> dict[str, Any]:
    token = {"audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"}
    sources: list[dict[str, Any]] = [{"serviceAccountToken": token}]
    if surroundings.has_ca:
        sources.append({"configMap": {"name": CA_CONFIG_MAP, "items": [{"key": CA_KEY, "path": CA_KEY}]}})
    return {"name": VOLUME, "projected": {"sources": sources}}


def _environment(pool: WorkerPool, surroundings: Surroundings) -> list[dict[str, Any]]:
    variables = [
        _value("ENDPOINT", surroundings.endpoint),
        _value("POOL", pool.metadata.name),
        _field("NAMESPACE", "metadata.namespace"),
        _field("WORKER_NAME", "metadata.name"),
        _value("TOKEN_FILE", f"{MOUNT}/token"),
        _value("SLOTS", str(pool.spec.slots)),
        _value("DRAIN_TIMEOUT", f"{pool.spec.drain_timeout.milliseconds / 1000:.10g}"),
        _value("READY_PORT", str(READY_PORT)),
        _field("NODE_NAME", "spec.nodeName"),
        # Kubernetes copies it from the node to the pod (1.35 and later); empty where it does not.
        _field("ZONE", "metadata.labels['topology.kubernetes.io/zone']"),
        _resource("CPU_LIMIT_MILLIS", "limits.cpu", "1m"),
        _resource("MEMORY_LIMIT_BYTES", "limits.memory", "1"),
    ]
    if surroundings.has_ca:
        variables.insert(5, _value("CA_FILE", f"{MOUNT}/{CA_KEY}"))
    return variables


def _value(name: str, value: str) -> dict[str, Any]:
    return {"name": f"TICKWHEEL_{name}", "value": value}


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": f"TICKWHEEL_{name}", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def _resource(name: str, resource: str, divisor: str) -> dict[str, Any]:
    return {
        "name": f"TICKWHEEL_{name}",
        "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": divisor}},
    }


def _secure(spec: dict[str, Any]) -> None:
    """What the Pod Security level `restricted` asks for, where the user says nothing: a worker needs no more, and a
    namespace that enforces it takes the pods."""
    containers = [*spec["containers"], *(spec.get("initContainers") or ())]
    pod = spec["securityContext"] = dict(spec.get("securityContext") or {})
    contexts = [pod, *(container.get("securityContext") or {} for container in containers)]
    if all(context.get("runAsUser") != 0 for context in contexts):
        pod.setdefault("runAsNonRoot", True)
    pod.setdefault("seccompProfile", {"type": "RuntimeDefault"})
    for container in containers:
        context = container["securityContext"] = dict(container.get("securityContext") or {})
        context.setdefault("allowPrivilegeEscalation", False)
        context["capabilities"] = {"drop": ["ALL"], **(context.get("capabilities") or {})}
