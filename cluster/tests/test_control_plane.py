"""The control plane itself: what the other tests stand on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "cluster"))

from tickwheel_cluster import BinariesError, ControlPlane, ControlPlaneError, choose, find_binaries  # noqa: E402
from tickwheel_cluster.ports import draw_ports  # noqa: E402

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("cluster"), unsafe_no_fsync=True) as running:
        yield running


def test_it_is_the_version_that_is_pinned(control_plane: ControlPlane) -> None:
    assert control_plane.request("GET", "/version")["gitVersion"] == "v1.36.3"


def test_objects_survive_a_killed_api_server(control_plane: ControlPlane) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"a": "1"}}
    control_plane.request("POST", CONFIG_MAPS, body)

    control_plane.kill_api_server()
    control_plane.restart_api_server()

    kept = control_plane.request("GET", f"{CONFIG_MAPS}/kept")
    assert kept["data"] == {"a": "1"}


def test_a_service_account_may_do_what_rbac_gives_and_nothing_else(control_plane: ControlPlane) -> None:
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    control_plane.request("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "reader"}})
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}
    control_plane.request("POST", f"{rbac}/roles", {"metadata": {"name": "reader"}, "rules": [rule]})
    binding = {
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}],
    }
    control_plane.request("POST", f"{rbac}/rolebindings", binding)

    kubeconfig = control_plane.service_account_kubeconfig("default", "reader", ttl_seconds=600)

    # The authorizer learns of a binding by watching, a moment after it was made.
    deadline = time.monotonic() + 60
    while (allowed := _kubectl(kubeconfig, "get", "configmaps")).returncode != 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    refused = _kubectl(kubeconfig, "get", "secrets")
    assert allowed.returncode == 0, allowed.stderr
    assert refused.returncode != 0
    assert 'User "system:serviceaccount:default:reader" cannot list resource "secrets"' in refused.stderr


def test_a_second_start_finds_the_data_and_the_ports(tmp_path: Path) -> None:
    with ControlPlane(tmp_path, unsafe_no_fsync=True) as first:
        url = first.url
        first.request("POST", CONFIG_MAPS, {"metadata": {"name": "kept"}})

    with ControlPlane(tmp_path, unsafe_no_fsync=True) as second:
        assert second.url == url
        assert second.request("GET", f"{CONFIG_MAPS}/kept")["metadata"]["name"] == "kept"


def test_two_run_side_by_side_with_objects_of_their_own(control_plane: ControlPlane, tmp_path: Path) -> None:
    with ControlPlane(tmp_path, unsafe_no_fsync=True) as other:
        other.request("POST", CONFIG_MAPS, {"metadata": {"name": "of-the-other"}})

        names = [item["metadata"]["name"] for item in control_plane.request("GET", CONFIG_MAPS)["items"]]

    assert "of-the-other" not in names


@pytest.mark.parametrize("taken", ["etcd", "peer", "api"])
def test_a_port_that_is_taken_is_not_fatal(taken: str, tmp_path: Path) -> None:
    sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in ("etcd", "peer", "api")}
    ports = {name: listener.getsockname()[1] for name, listener in sockets.items()}
    for name in sockets.keys() - {taken}:
        sockets[name].close()
    (tmp_path / "ports.json").write_text(json.dumps(ports))

    with sockets[taken], ControlPlane(tmp_path, unsafe_no_fsync=True) as control_plane:
        assert control_plane.request("GET", "/readyz") == "ok"
        assert str(ports["api"]) not in control_plane.url
        assert control_plane.url in control_plane.admin_kubeconfig.read_text()


def test_the_etcd_of_another_is_never_given_to_our_api_server(control_plane: ControlPlane, tmp_path: Path) -> None:
    theirs = int(control_plane.etcd_url.rsplit(":", 1)[1])
    (tmp_path / "ports.json").write_text(json.dumps({**draw_ports("peer", "api"), "etcd": theirs}))

    with ControlPlane(tmp_path, unsafe_no_fsync=True) as other:
        assert other.etcd_url != control_plane.etcd_url
        # One start: none while the port was the other's.
        assert (other.logs / "kube-apiserver.log").read_text().count("Golang settings") == 1


def test_a_start_that_fails_says_why_and_leaves_nothing_running(tmp_path: Path) -> None:
    with ControlPlane(tmp_path, unsafe_no_fsync=True):
        pass
    (tmp_path / "pki" / "apiserver.crt").write_text("no certificate")

    with pytest.raises(ControlPlaneError, match=r"kube-apiserver ended with code 1.*\n(.*\n)*.*failed to find any PEM"):
        ControlPlane(tmp_path, unsafe_no_fsync=True).start()

    assert _processes(tmp_path) == {}


def test_it_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    control_plane = ControlPlane(tmp_path, unsafe_no_fsync=True)
    thread = threading.Thread(target=control_plane.start)
    thread.start()
    thread.join()
    try:
        time.sleep(0.5)
        assert control_plane.pids.keys() == {"etcd", "kube-apiserver"}
    finally:
        control_plane.stop()
    assert _processes(tmp_path) == {}


def test_a_folder_serves_one_control_plane_at_a_time(control_plane: ControlPlane) -> None:
    for second in (ControlPlane(control_plane.directory), control_plane):
        with pytest.raises(ControlPlaneError, match=f"process {os.getpid()} runs a control plane in"):
            second.start()

    assert control_plane.request("GET", "/readyz") == "ok"


def test_a_killed_parent_leaves_no_processes(tmp_path: Path) -> None:
    parent = _run(tmp_path)
    assert len(_processes(tmp_path)) == 2

    parent.send_signal(signal.SIGKILL)
    parent.wait()

    left = _processes_soon(tmp_path)
    for pid in left:  # where this fails, nobody else would end them
        os.kill(pid, signal.SIGKILL)
    assert left == {}


def test_a_terminated_parent_stops_them_in_order(tmp_path: Path) -> None:
    parent = _run(tmp_path)

    parent.send_signal(signal.SIGTERM)

    assert parent.wait(40) == 0
    assert _processes(tmp_path) == {}
    # Only an etcd that was asked to stop says so.
    assert "closed etcd server" in (tmp_path / "logs" / "etcd.log").read_text()


def test_up_leaves_it_in_the_background_until_down(tmp_path: Path) -> None:
    try:
        up = _command("up", "--dir", str(tmp_path))
        assert up.stdout.strip() == f"export KUBECONFIG={tmp_path / 'admin.kubeconfig'}", up.stderr
        assert _kubectl(tmp_path / "admin.kubeconfig", "get", "--raw", "/readyz").stdout == "ok"
        assert "runs in" in _command("up", "--dir", str(tmp_path)).stderr
    finally:
        down = _command("down", "--dir", str(tmp_path))

    assert (down.returncode, down.stderr) == (0, "")
    assert _processes(tmp_path) == {}
    assert "no control plane runs" in _command("down", "--dir", str(tmp_path)).stdout


def test_down_does_not_end_a_process_that_it_did_not_start(control_plane: ControlPlane) -> None:
    down = _command("down", "--dir", str(control_plane.directory))

    assert down.returncode == 1
    assert f"belongs to process {os.getpid()}" in down.stderr
    assert control_plane.request("GET", "/readyz") == "ok"


def test_a_given_cluster_is_used_and_not_controlled(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TICKWHEEL_TEST_KUBECONFIG", str(control_plane.admin_kubeconfig))

    with choose(tmp_path) as given:
        assert not isinstance(given, ControlPlane)
        assert given.url == control_plane.url
        assert given.request("GET", "/readyz") == "ok"
    assert control_plane.request("GET", "/readyz") == "ok"


def test_a_given_kubeconfig_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TICKWHEEL_TEST_KUBECONFIG", str(tmp_path / "nowhere"))

    with pytest.raises(FileNotFoundError, match=r"TICKWHEEL_TEST_KUBECONFIG is .*nowhere"), choose(tmp_path):
        pass


def test_without_a_given_cluster_one_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TICKWHEEL_TEST_KUBECONFIG", raising=False)

    with choose(tmp_path, unsafe_no_fsync=True) as chosen:
        assert isinstance(chosen, ControlPlane)
    assert _processes(tmp_path) == {}


def test_assets_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))

    with pytest.raises(BinariesError, match="etcd, kube-apiserver"):
        find_binaries()


def test_without_go_and_without_a_cache_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(BinariesError, match=r"install Go 1\.26 or later; .* KUBEBUILDER_ASSETS"):
        find_binaries()


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tickwheel_cluster", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / "cluster")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _run(folder: Path) -> subprocess.Popen[str]:
    """A `run` in a process of its own that is ready."""
    parent = subprocess.Popen(
        [sys.executable, "-m", "tickwheel_cluster", "run", str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "cluster")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert "KUBECONFIG" in parent.stdout.readline()
    return parent


def _kubectl(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(find_binaries() / "kubectl"), f"--kubeconfig={kubeconfig}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _processes_soon(folder: Path) -> dict[int, str]:
    """What is left once the kernel has had its time."""
    deadline = time.monotonic() + 60
    while (found := _processes(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _processes(folder: Path) -> dict[int, str]:
    """Command lines that name the folder, by process id."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command and ("etcd" in command or "apiserver" in command):
            found[int(entry.parent.name)] = command
    return found
