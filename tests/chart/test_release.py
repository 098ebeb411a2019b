"""Helm installs, upgrades, tests and uninstalls the chart on a real API server, with real operator processes that have
the ServiceAccount of the chart. There are no nodes: that the pods run is the end-to-end tests' affair."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.chart.previous import previous_chart
from tests.chart.release import Release
from tests.chart.rendering import CHART, NAMESPACE, RELEASE, find, only, render
from tests.e2e.kube import Kube, until
from tests.integration.processes import Crew

from tickwheel_cluster import ControlPlane

SHOP = "shop"
HANDLERS = CHART / "files" / "test" / "handlers.py"
ACCOUNT = {"serviceAccount": {"create": True, "name": "tickwheel-operator"}}
"""The name that the processes of tests look for."""


@pytest.fixture
def shop(kube: Kube) -> str:
    """A user's namespace with a ServiceAccount. What is in it goes with the CRDs."""
    kube.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SHOP}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shop-worker", "namespace": SHOP}},
    )
    return SHOP


def objects_of_a_user() -> list[dict[str, Any]]:
    """A pool whose workers run elsewhere, and a task that fires each second."""
    api = "tickwheel.io/v1alpha1"
    metadata = {"name": "echo", "namespace": SHOP}
    pool = {"access": {"serviceAccounts": ["shop-worker"]}}
    task = {
        "trigger": {"fixedRate": "1s"},
        "misfire": {"policy": "FireAll", "maxCatchUp": 1000},
        "pool": "echo",
        "handler": "echo",
        "parameters": {"text": "x"},
    }
    return [
        {"apiVersion": api, "kind": "WorkerPool", "metadata": metadata, "spec": pool},
        {"apiVersion": api, "kind": "ScheduledTask", "metadata": metadata, "spec": task},
    ]


def counters(kube: Kube) -> dict[str, int]:
    """What became of the task's runs, as its status has it."""
    return dict(kube.get("scheduledtask", "echo", "-n", SHOP).get("status", {}).get("counters", {}))


def fires_on(kube: Kube) -> None:
    """Three more runs succeed."""
    before = counters(kube).get("succeeded", 0)
    until("three more runs that succeed", lambda: counters(kube).get("succeeded", 0) >= before + 3, 60)


# --- install, upgrade, uninstall ---


def test_a_release_is_installed_and_upgraded_with_other_values(release: Release, kube: Kube) -> None:
    release.install()
    assert release.status()["info"]["status"] == "deployed"
    assert len(release.crds()) == 8
    release.upgrade({"replicas": 3, "election": {"leaseDuration": "20s"}, "networkPolicy": {"enabled": True}})
    deployment = kube.get("deployment", RELEASE, "-n", NAMESPACE)
    assert deployment["spec"]["replicas"] == 3
    assert "--lease-duration-ms=20000" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert kube.items("networkpolicy", "-n", NAMESPACE)
    release.upgrade({"networkPolicy": {"enabled": False}})
    assert not kube.items("networkpolicy", "-n", NAMESPACE)


def test_uninstalling_leaves_what_users_made_and_an_install_takes_it_over_again(
    release: Release, kube: Kube, shop: str
) -> None:
    release.install()
    kube.apply(*objects_of_a_user())
    uid = kube.get("scheduledtask", "echo", "-n", SHOP)["metadata"]["uid"]
    release.uninstall()
    for kind in ("deployment", "service", "serviceaccount", "role", "rolebinding", "configmap", "pdb"):
        assert not [o for o in kube.items(kind, "-n", NAMESPACE) if RELEASE in o["metadata"]["name"]], kind
    for kind in ("clusterrole", "clusterrolebinding", "validatingadmissionpolicy"):
        assert not [o for o in kube.items(kind) if "tickwheel" in o["metadata"]["name"]], kind
    assert kube.get("scheduledtask", "echo", "-n", SHOP)["metadata"]["uid"] == uid
    assert kube.get("workerpool", "echo", "-n", SHOP)
    release.install()
    assert kube.get("scheduledtask", "echo", "-n", SHOP)["metadata"]["uid"] == uid


def test_with_crds_of_somebody_else_the_release_has_none(release: Release) -> None:
    release.install()
    release.uninstall()
    release.install({"crds": {"enabled": False}})
    assert "CustomResourceDefinition" not in release.kube.helm("get", "manifest", RELEASE, "-n", NAMESPACE)
    release.uninstall()
    assert len(release.crds()) == 8


# --- with operators ---


def test_an_upgrade_from_the_previous_chart_keeps_tasks_firing(
    release: Release, kube: Kube, shop: str, cluster: ControlPlane, tmp_path: Path
) -> None:
    chart = previous_chart(tmp_path / "previous")
    if chart is None:
        pytest.skip("there is no chart before this one in the history that is here")
    release.install(ACCOUNT, chart=chart)
    kube.apply(*objects_of_a_user())
    with Crew(cluster, tmp_path, system=NAMESPACE, namespace=SHOP) as crew:
        crew.operator("old").wait_ready()
        crew.worker("w", pool="echo", account="shop-worker", handlers=HANDLERS, environment={})
        fires_on(kube)
        release.upgrade(ACCOUNT)
        fires_on(kube)
        # A rolling update: the new replica is ready, then the old one hands over.
        crew.operator("new").wait_ready()
        assert crew.operators[0].terminate() == 0
        fires_on(kube)
        assert counters(kube).get("failed", 0) == counters(kube).get("skipped", 0) == 0


@pytest.mark.parametrize("namespaces", [[], [SHOP]], ids=["cluster-wide", "namespaced"])
def test_with_the_permissions_of_the_chart_the_operator_serves_and_helm_tests_script_succeeds(
    release: Release, kube: Kube, shop: str, cluster: ControlPlane, tmp_path: Path, namespaces: list[str]
) -> None:
    values = {**ACCOUNT, "watchNamespaces": namespaces, "test": {"namespace": SHOP, "timeoutSeconds": 60}}
    release.install(values)
    hooks = [o for o in render(values) if "helm.sh/hook" in o["metadata"].get("annotations", {})]
    only(hooks, "WorkerPool")["spec"].pop("template")  # its worker is a process of this test
    [pod] = find(hooks, "Pod")
    kube.apply(*(hook for hook in hooks if hook is not pod))
    name = f"{RELEASE}-test"
    environment = {variable["name"]: variable["value"] for variable in pod["spec"]["containers"][0]["env"]}
    settings = {"TICKWHEEL_WATCH_NAMESPACES": " ".join(namespaces)}
    with Crew(cluster, tmp_path, system=NAMESPACE, namespace=SHOP) as crew:
        operator = crew.operator("operator", **settings)
        operator.wait_ready()
        crew.worker("w", pool=name, account=f"{name}-worker", handlers=HANDLERS, environment={})
        done = run_test_script(cluster, tmp_path, name, environment)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "the run is Succeeded" in done.stdout
        assert not kube.items("taskrun", "-n", SHOP, "--field-selector", f"metadata.name={name}")
        # A word of its own: not in the milliseconds of a line, nor in what was drawn at random.
        assert not re.search(r"(?<!,)\b403\b", operator.log.read_text()), operator.log.read_text()


def test_helm_tests_script_tells_what_it_saw_where_nothing_runs(
    release: Release, kube: Kube, shop: str, cluster: ControlPlane, tmp_path: Path
) -> None:
    values = {"test": {"namespace": SHOP, "timeoutSeconds": 10}}
    release.install(values)
    hooks = [o for o in render(values) if "helm.sh/hook" in o["metadata"].get("annotations", {})]
    kube.apply(*(hook for hook in hooks if hook["kind"] != "Pod"))
    environment = {"TEST_NAMESPACE": SHOP, "TEST_NAME": f"{RELEASE}-test", "TEST_TIMEOUT_SECONDS": "1"}
    done = run_test_script(cluster, tmp_path, f"{RELEASE}-test", environment)
    assert done.returncode == 1
    assert "it did not end within 1 s" in done.stdout
    assert f"workerpools/{RELEASE}-test" in done.stdout


def run_test_script(
    cluster: ControlPlane, folder: Path, account: str, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """As the pod of `helm test` runs it, with that pod's ServiceAccount."""
    mounted = folder / "account"
    mounted.mkdir()
    (mounted / "token").write_text(cluster.service_account_token(NAMESPACE, account))
    (mounted / "ca.crt").write_bytes(cluster.ca_file.read_bytes())
    host, port = cluster.url.removeprefix("https://").split(":")
    return subprocess.run(
        [sys.executable, "-I", "-S", str(CHART / "files" / "test" / "run.py")],
        env={
            "PATH": os.environ["PATH"],
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            "TEST_SERVICE_ACCOUNT": str(mounted),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )


# --- last, for the control plane is without the kinds then ---


def test_crds_that_are_not_kept_go_with_the_release(kube: Kube) -> None:
    release = Release(kube)
    release.install({"crds": {"keep": False}})
    release.uninstall()
    # An API server takes its time to clean up what such a kind had.
    left = [crd["metadata"] for crd in kube.items("crd") if crd["metadata"]["name"].endswith(".tickwheel.io")]
    assert all("deletionTimestamp" in metadata for metadata in left)
