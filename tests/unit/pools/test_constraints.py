"""What a template may not contain: each fault is named by its field, all at once, and nothing else is refused."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.pools.builders import a_pool, worker

from tickwheel_operator.api import WorkerPool
from tickwheel_operator.pools.constraints import faults

POD = "spec.template.spec"
WORKER = f"{POD}.containers[0]"


def paths(pool: WorkerPool, *patterns: str) -> list[str]:
    return [fault.path for fault in faults(pool, patterns)]


@pytest.mark.parametrize(
    ("pod", "path"),
    [
        ({"hostNetwork": True}, f"{POD}.hostNetwork"),
        ({"hostPID": True}, f"{POD}.hostPID"),
        ({"hostIPC": True}, f"{POD}.hostIPC"),
        ({"nodeName": "n1"}, f"{POD}.nodeName"),
        ({"ephemeralContainers": [{"name": "debug"}]}, f"{POD}.ephemeralContainers"),
        ({"priorityClassName": "system-node-critical"}, f"{POD}.priorityClassName"),
        ({"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "hostPath": {}}]}, f"{POD}.volumes[1].hostPath"),
        ({"volumes": [{"name": "tickwheel", "emptyDir": {}}]}, f"{POD}.volumes[0].name"),
        ({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}}, f"{POD}.securityContext.sysctls[0].name"),
        (
            {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
            f"{POD}.securityContext.seccompProfile.type",
        ),
        ({"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}, f"{POD}.securityContext.seLinuxOptions"),
        (
            {"securityContext": {"windowsOptions": {"hostProcess": True}}},
            f"{POD}.securityContext.windowsOptions.hostProcess",
        ),
        (
            {"initContainers": [{"name": "i", "securityContext": {"privileged": True}}]},
            f"{POD}.initContainers[0].securityContext.privileged",
        ),
    ],
)
def test_what_reaches_beyond_the_pod_is_refused_by_its_field(pod: dict[str, Any], path: str) -> None:
    assert paths(a_pool(pod=pod)) == [path]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 81}]}, "ports[1].hostPort"),
        ({"securityContext": {"privileged": True}}, "securityContext.privileged"),
        ({"securityContext": {"allowPrivilegeEscalation": True}}, "securityContext.allowPrivilegeEscalation"),
        ({"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}, "securityContext.capabilities.add"),
        ({"securityContext": {"procMount": "Unmasked"}}, "securityContext.procMount"),
        ({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}, "securityContext.appArmorProfile.type"),
        ({"volumeMounts": [{"name": "a", "mountPath": "/var/run/tickwheel"}]}, "volumeMounts[0].mountPath"),
        ({"volumeMounts": [{"name": "a", "mountPath": "/run/tickwheel/x/"}]}, "volumeMounts[0].mountPath"),
        ({"env": [{"name": "A"}, {"name": "TICKWHEEL_POOL", "value": "other"}]}, "env[1]"),
        ({"env": [{"name": "TICKWHEEL_ENDPOINT"}]}, "env[0]"),
        ({"env": [{"name": "TICKWHEEL_SLOTS", "value": "99"}]}, "env[0]"),
    ],
)
def test_what_a_container_may_not_have_is_refused_by_its_field(fields: dict[str, Any], path: str) -> None:
    assert paths(a_pool(worker(**fields))) == [f"{WORKER}.{path}"]


def test_all_faults_are_told_at_once() -> None:
    pool = a_pool(
        worker(securityContext={"privileged": True}, env=[{"name": "TICKWHEEL_POOL"}]),
        metadata={"labels": {"tickwheel.io/pool": "other", "team": "a"}},
        pod={"hostNetwork": True},
        drainTimeout="25h",
    )
    assert paths(pool) == [
        "spec.template.metadata.labels[tickwheel.io/pool]",
        f"{POD}.hostNetwork",
        f"{WORKER}.securityContext.privileged",
        f"{WORKER}.env[0]",
        "spec.drainTimeout",
    ]


def test_a_fault_says_what_to_do() -> None:
    (fault,) = faults(a_pool(worker(env=[{"name": "TICKWHEEL_SLOTS", "value": "4"}])))
    assert str(fault) == f"{WORKER}.env[0]: TICKWHEEL_SLOTS is set by the operator: set spec.slots instead"


@pytest.mark.parametrize(
    ("account", "admitted", "patterns", "path"),
    [
        ("shop-worker", ["shop-worker"], ["*-worker"], None),
        ("shop-worker", [], [], None),
        ("", [], [], None),
        ("", ["shop-worker"], [], "serviceAccountName"),
        ("admin", ["shop-worker"], [], "serviceAccountName"),
        ("admin", [], ["*-worker"], "serviceAccountName"),
        ("", [], ["*-worker"], "serviceAccountName"),
        ("", [], ["default"], None),
        ("admin", [], ["shops/*"], None),
        ("admin", [], ["other/*"], "serviceAccountName"),
        ("shop-worker", [], ["SHOP-*"], "serviceAccountName"),
    ],
)
def test_the_pods_account_is_one_that_the_pool_and_the_operator_admit(
    account: str, admitted: list[str], patterns: list[str], path: str | None
) -> None:
    pod = {"serviceAccountName": account} if account else {}
    pool = a_pool(pod=pod, access={"serviceAccounts": admitted})
    assert paths(pool, *patterns) == ([] if path is None else [f"{POD}.{path}"])


def test_the_old_name_of_the_accounts_field_is_no_way_around() -> None:
    assert paths(a_pool(pod={"serviceAccount": "admin"}), "default") == [f"{POD}.serviceAccount"]


def test_an_account_that_is_not_set_is_called_default_in_the_message() -> None:
    (fault,) = faults(a_pool(access={"serviceAccounts": ["shop-worker"]}))
    assert "default (none is set) is not among spec.access.serviceAccounts" in fault.message
    assert "use shop-worker" in fault.message


def test_what_an_ordinary_worker_has_is_allowed() -> None:
    container = worker(
        command=["sh", "-c", "python3 -m tickwheel shop"],
        env=[{"name": "TICKWHEEL_LABELS", "value": "gpu=true"}, {"name": "A", "valueFrom": {"secretKeyRef": {}}}],
        envFrom=[{"configMapRef": {"name": "c"}}],
        ports=[{"containerPort": 8080}],
        resources={"limits": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": 1}},
        securityContext={"capabilities": {"add": ["NET_BIND_SERVICE"]}, "privileged": False, "procMount": "Default"},
        volumeMounts=[{"name": "data", "mountPath": "/var/run/tickwheel-data"}],
    )
    pod = {
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}],
        "hostNetwork": False,
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "batch",
        "securityContext": {"sysctls": [{"name": "net.ipv4.tcp_keepalive_time", "value": "60"}], "runAsUser": 0},
        "initContainers": [{"name": "proxy", "image": "p", "restartPolicy": "Always"}],
        "serviceAccountName": "shop-worker",
    }
    assert paths(a_pool(container, {"name": "sidecar", "image": "s"}, pod=pod), "*-worker") == []


def test_a_pool_without_a_template_has_nothing_to_refuse() -> None:
    pool = a_pool(drainTimeout="30d")
    assert faults(pool.model_copy(update={"spec": pool.spec.model_copy(update={"template": None})})) == []


@pytest.mark.parametrize(
    ("pod", "path"),
    [
        ({"containers": []}, "containers"),
        ({"containers": "worker"}, "containers"),
        ({"containers": [7]}, "containers"),
        ({"containers": [{"name": "w", "env": {"A": "1"}}]}, "containers[0].env"),
        ({"containers": [{"name": "w", "volumeMounts": ["x"]}]}, "containers[0].volumeMounts"),
        ({"containers": [{"name": "w", "lifecycle": []}]}, "containers[0].lifecycle"),
        ({"containers": [{"name": "w", "securityContext": True}]}, "containers[0].securityContext"),
        (
            {"containers": [{"name": "w", "securityContext": {"capabilities": {"add": "ALL"}}}]},
            "containers[0].securityContext.capabilities.add",
        ),
        ({"volumes": {"name": "x"}}, "volumes"),
        ({"initContainers": ["x"]}, "initContainers"),
        ({"securityContext": "x"}, "securityContext"),
        ({"securityContext": {"sysctls": ["x"]}}, "securityContext.sysctls"),
        ({"terminationGracePeriodSeconds": "60"}, "terminationGracePeriodSeconds"),
    ],
)
def test_a_template_that_is_no_pod_is_refused_and_breaks_nothing(pod: dict[str, Any], path: str) -> None:
    assert paths(a_pool(pod=pod)) == [f"{POD}.{path}"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("livenessProbe", {"httpGet": {"port": 80, "host": "127.0.0.1"}}),
        ("readinessProbe", {"tcpSocket": {"port": 22, "host": "10.0.0.1"}}),
    ],
)
def test_kubelet_may_not_be_made_to_call_another_host(field: str, value: dict[str, Any]) -> None:
    (kind,) = value
    found = faults(a_pool(worker(**{field: value})))
    assert [fault.path for fault in found] == [f"spec.template.spec.containers[0].{field}.{kind}.host"]


@pytest.mark.parametrize("given", [{}, {"value": "0"}, {"value": "70000"}, {"value": "http"}, {"valueFrom": {}}])
def test_the_port_of_the_operators_probe_must_be_one_that_it_can_read(given: dict[str, Any]) -> None:
    pool = a_pool(worker(env=[{"name": "TICKWHEEL_READY_PORT", **given}]))
    assert paths(pool) == [f"{POD}.containers[0].env[0].value"]


def test_the_port_of_the_operators_probe_may_be_chosen() -> None:
    assert paths(a_pool(worker(env=[{"name": "TICKWHEEL_READY_PORT", "value": "18459"}]))) == []
