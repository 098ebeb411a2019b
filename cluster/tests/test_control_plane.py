"""The control plane itself: what the other tests stand on."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "cluster"))

from tickwheel_cluster import BinariesError, ControlPlane, find_binaries  # noqa: E402


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("cluster"), unsafe_no_fsync=True) as running:
        yield running


def test_it_is_the_version_that_is_pinned(control_plane: ControlPlane) -> None:
    assert control_plane.request("GET", "/version")["gitVersion"] == "v1.36.3"


def test_objects_survive_a_killed_api_server(control_plane: ControlPlane) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"a": "1"}}
    control_plane.request("POST", "/api/v1/namespaces/default/configmaps", body)

    control_plane.kill_api_server()
    control_plane.restart_api_server()

    kept = control_plane.request("GET", "/api/v1/namespaces/default/configmaps/kept")
    assert kept["data"] == {"a": "1"}


def test_a_service_account_may_do_nothing_that_rbac_does_not_give(control_plane: ControlPlane) -> None:
    account = {"metadata": {"name": "nobody"}}
    control_plane.request("POST", "/api/v1/namespaces/default/serviceaccounts", account)
    token = control_plane.service_account_token("default", "nobody")
    request = urllib.request.Request(
        f"{control_plane.url}/api/v1/namespaces/default/secrets", headers={"Authorization": f"Bearer {token}"}
    )

    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, context=ssl.create_default_context(cafile=str(control_plane.ca_file)))

    assert refused.value.code == 403


def test_a_killed_parent_leaves_no_processes(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-m", "tickwheel_cluster", "run", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "cluster")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert "KUBECONFIG" in parent.stdout.readline()
    assert _processes(tmp_path)

    parent.send_signal(signal.SIGKILL)
    parent.wait()

    deadline = time.monotonic() + 20
    while _processes(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _processes(tmp_path) == []


def test_assets_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))

    with pytest.raises(BinariesError, match="etcd, kube-apiserver"):
        find_binaries()


def _processes(folder: Path) -> list[str]:
    """Command lines that name the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command and ("etcd" in command or "apiserver" in command):
            found.append(command)
    return found
