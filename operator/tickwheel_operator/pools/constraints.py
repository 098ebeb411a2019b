"""What a WorkerPool's template may not contain, since a pod template is power over a namespace and its nodes.

Pure: the reconciler asks before it applies, so that whoever may write WorkerPools cannot make the operator, which may
create Deployments everywhere, make pods that reach the host or run as an account that was not meant for workers. What
the API server, Pod Security and admission refuse beyond this is theirs to say. Invariant: all faults are told at once,
each with its field; a template without faults has the shape that `template.deployment` relies on.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from tickwheel_operator.api import FieldFault, WorkerPool
from tickwheel_operator.pools.template import MOUNT, OWN_VARIABLES, READY_PORT_VARIABLE, VOLUME, worker_index

__all__ = ["faults"]


_SPEC = "spec.template.spec"
_HOST = "workers may not reach into the node; remove it"
_MOST_DRAIN_MS = 86_400_000
_CAPABILITIES = frozenset({"NET_BIND_SERVICE"})
"""That `restricted` lets a container add."""
_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
"""That Kubernetes calls safe."""
_SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_OBJECTS = {"securityContext", "lifecycle"}
_LISTS = {"env", "volumeMounts", "ports"}


def faults(pool: WorkerPool, service_accounts: tuple[str, ...] = ()) -> list[FieldFault]:
    """What must be mended in the pool's template, in its order; empty: it may be used, or there is none.

    `service_accounts` are the patterns of the operator's setting, such as `*-worker` or `shops/*`; empty: any.
    """
    template = pool.spec.template
    if template is None:
        return []
    misshapen = list(_shape(template.spec))
    if misshapen:
        return misshapen
    found = list(_metadata(template.metadata.labels, template.metadata.annotations)) if template.metadata else []
    return [
        *found,
        *_pod(template.spec),
        *_account(pool, template.spec, service_accounts),
        *_containers(template.spec),
        *_drain(pool),
    ]


# --- shape: only what would break the code below and in `template` ---


def _shape(spec: Mapping[str, Any]) -> Iterator[FieldFault]:
    if not spec.get("containers"):
        yield FieldFault(f"{_SPEC}.containers", "a worker needs a container: [{name: worker, image: ...}]")
    for field in ("containers", "initContainers", "volumes"):
        yield from _list_of_objects(spec.get(field), f"{_SPEC}.{field}")
    yield from _object(spec.get("securityContext"), f"{_SPEC}.securityContext")
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
        yield FieldFault(f"{_SPEC}.terminationGracePeriodSeconds", "must be a whole number of seconds")
    for field in ("containers", "initContainers"):
        for index, container in enumerate(_list(spec.get(field))):
            for name in sorted(_LISTS):
                yield from _list_of_objects(container.get(name), f"{_SPEC}.{field}[{index}].{name}")
            for name in sorted(_OBJECTS):
                yield from _object(container.get(name), f"{_SPEC}.{field}[{index}].{name}")
    for holder, path in _security_contexts(spec):
        for name in ("capabilities", "seccompProfile", "appArmorProfile", "seLinuxOptions", "windowsOptions"):
            yield from _object(holder.get(name), f"{path}.{name}")
        added = _object_or_empty(holder.get("capabilities")).get("add")
        if added is not None and not (isinstance(added, list) and all(isinstance(name, str) for name in added)):
            yield FieldFault(f"{path}.capabilities.add", "must be a list of names")
        yield from _list_of_objects(holder.get("sysctls"), f"{path}.sysctls")


def _list_of_objects(value: object, path: str) -> Iterator[FieldFault]:
    if value is not None and not (isinstance(value, list) and all(isinstance(entry, dict) for entry in value)):
        yield FieldFault(path, "must be a list of objects")


def _object(value: object, path: str) -> Iterator[FieldFault]:
    if value is not None and not isinstance(value, dict):
        yield FieldFault(path, "must be an object")


def _list(value: object) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _object_or_empty(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _security_contexts(spec: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    yield _object_or_empty(spec.get("securityContext")), f"{_SPEC}.securityContext"
    for container, path in _all_containers(spec):
        yield _object_or_empty(container.get("securityContext")), f"{path}.securityContext"


def _all_containers(spec: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for field in ("containers", "initContainers"):
        for index, container in enumerate(_list(spec.get(field))):
            yield container, f"{_SPEC}.{field}[{index}]"


# --- what is not allowed ---


def _metadata(labels: Mapping[str, str], annotations: Mapping[str, str]) -> Iterator[FieldFault]:
    for label in labels:
        if label.startswith("tickwheel.io/"):
            yield FieldFault(f"spec.template.metadata.labels[{label}]", "labels of tickwheel.io are the operator's own")
    for annotation, value in annotations.items():
        if annotation.startswith(_APPARMOR) and value == "unconfined":
            yield FieldFault(f"spec.template.metadata.annotations[{annotation}]", "AppArmor may not be turned off")


def _pod(spec: Mapping[str, Any]) -> Iterator[FieldFault]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield FieldFault(f"{_SPEC}.{field}", _HOST)
    if spec.get("nodeName"):
        yield FieldFault(
            f"{_SPEC}.nodeName", "it would pass by the scheduler; use nodeSelector: {kubernetes.io/hostname: ...}"
        )
    if spec.get("ephemeralContainers"):
        yield FieldFault(f"{_SPEC}.ephemeralContainers", "they are for pods that run; use kubectl debug")
    priority = spec.get("priorityClassName")
    if isinstance(priority, str) and priority.startswith("system-"):
        yield FieldFault(f"{_SPEC}.priorityClassName", f"{priority} is for the cluster's own pods; use another class")
    for index, volume in enumerate(_list(spec.get("volumes"))):
        path = f"{_SPEC}.volumes[{index}]"
        if "hostPath" in volume:
            yield FieldFault(f"{path}.hostPath", f"{_HOST}, or use emptyDir or a persistentVolumeClaim")
        if volume.get("name") == VOLUME:
            yield FieldFault(f"{path}.name", f"{VOLUME} is the operator's own volume; choose another name")
    for context, path in _security_contexts(spec):
        yield from _security(context, path)


def _security(context: Mapping[str, Any], path: str) -> Iterator[FieldFault]:
    if context.get("privileged"):
        yield FieldFault(f"{path}.privileged", _HOST)
    if context.get("allowPrivilegeEscalation"):
        yield FieldFault(f"{path}.allowPrivilegeEscalation", "workers may not gain privileges; remove it")
    added = sorted(set(_object_or_empty(context.get("capabilities")).get("add") or ()) - _CAPABILITIES)
    if added:
        yield FieldFault(f"{path}.capabilities.add", f"{', '.join(added)} may not be added; only NET_BIND_SERVICE may")
    if context.get("procMount") not in (None, "Default"):
        yield FieldFault(f"{path}.procMount", "must be Default; remove it")
    for name in ("seccompProfile", "appArmorProfile"):
        if _object_or_empty(context.get(name)).get("type") == "Unconfined":
            yield FieldFault(f"{path}.{name}.type", "must be RuntimeDefault or Localhost")
    selinux = _object_or_empty(context.get("seLinuxOptions"))
    if (selinux.get("type") or "") not in _SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield FieldFault(f"{path}.seLinuxOptions", "only level and the types of containers may be set")
    if _object_or_empty(context.get("windowsOptions")).get("hostProcess"):
        yield FieldFault(f"{path}.windowsOptions.hostProcess", _HOST)
    for index, sysctl in enumerate(_list(context.get("sysctls"))):
        if sysctl.get("name") not in _SYSCTLS:
            yield FieldFault(
                f"{path}.sysctls[{index}].name",
                f"{sysctl.get('name')} is not one that Kubernetes calls safe, such as net.ipv4.tcp_keepalive_time",
            )


def _containers(spec: Mapping[str, Any]) -> Iterator[FieldFault]:
    for container, path in _all_containers(spec):
        for index, port in enumerate(_list(container.get("ports"))):
            if port.get("hostPort"):
                yield FieldFault(f"{path}.ports[{index}].hostPort", _HOST)
        yield from _called(container, path)
    containers = _list(spec.get("containers"))
    worker = worker_index(containers)
    path = f"{_SPEC}.containers[{worker}]"
    for index, variable in enumerate(_list(containers[worker].get("env"))):
        why = OWN_VARIABLES.get(str(variable.get("name")))
        if why is not None:
            yield FieldFault(f"{path}.env[{index}]", f"{variable['name']} is set by the operator: {why}")
        if variable.get("name") == READY_PORT_VARIABLE and not _is_port(variable.get("value")):
            yield FieldFault(
                f"{path}.env[{index}].value", "must be a port in text, '1' to '65535': the operator's probe calls it"
            )
    for index, mount in enumerate(_list(containers[worker].get("volumeMounts"))):
        folder = posixpath.normpath("/" + str(mount.get("mountPath", "")).lstrip("/"))
        if f"{folder}/".removeprefix("/var").startswith(f"{MOUNT}/".removeprefix("/var")):  # /var/run is /run
            yield FieldFault(
                f"{path}.volumeMounts[{index}].mountPath", f"{MOUNT} is the operator's own; mount elsewhere"
            )


def _is_port(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[1-9][0-9]{0,4}", value) is not None and int(value) <= 65_535


def _called(container: Mapping[str, Any], path: str) -> Iterator[FieldFault]:
    """Probes and hooks are requests that kubelet makes, from the node's network: to the pod, and nowhere else."""
    lifecycle = _object_or_empty(container.get("lifecycle"))
    callers = [(name, container.get(name)) for name in ("livenessProbe", "readinessProbe", "startupProbe")]
    callers += [(f"lifecycle.{name}", lifecycle.get(name)) for name in ("postStart", "preStop")]
    for name, caller in callers:
        for kind in ("httpGet", "tcpSocket"):
            if _object_or_empty(_object_or_empty(caller).get(kind)).get("host"):
                yield FieldFault(
                    f"{path}.{name}.{kind}.host", "kubelet would call another host than the pod; remove it"
                )


def _account(pool: WorkerPool, spec: Mapping[str, Any], patterns: tuple[str, ...]) -> Iterator[FieldFault]:
    given = spec.get("serviceAccountName") or spec.get("serviceAccount")
    name = str(given or "default")
    field = "serviceAccount" if spec.get("serviceAccount") and not spec.get("serviceAccountName") else ""
    path = f"{_SPEC}.{field or 'serviceAccountName'}"
    shown = name if given else "default (none is set)"
    admitted = [str(account) for account in pool.spec.access.service_accounts]
    if admitted and name not in admitted:
        yield FieldFault(
            path,
            f"{shown} is not among spec.access.serviceAccounts, so its workers would be refused: use {admitted[0]}",
        )
    full = f"{pool.metadata.namespace}/{name}"
    if patterns and not any(fnmatchcase(full if "/" in pattern else name, pattern) for pattern in patterns):
        allowed = ", ".join(patterns)
        yield FieldFault(path, f"{shown} may not be used for workers of this cluster; allowed are {allowed}")


def _drain(pool: WorkerPool) -> Iterator[FieldFault]:
    if pool.spec.drain_timeout.milliseconds > _MOST_DRAIN_MS:
        yield FieldFault("spec.drainTimeout", f"{pool.spec.drain_timeout} is too long; the longest is 24h")
