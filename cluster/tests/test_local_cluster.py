"""The cluster with two nodes: pods, Services, DNS, images, a node that is cut off, and what is left afterwards."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tickwheel_cluster import find_binaries, find_tool
from tickwheel_cluster.local import ClusterImpossible, LocalCluster
from tickwheel_cluster.local.archives import one_file_image
from tickwheel_cluster.local.network import Network

IMAGE = "tickwheel.io/cluster-test:1"
DNS_NAME = "echo.default.svc.cluster.local"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    local = LocalCluster(tmp_path_factory.mktemp("local"))
    try:
        with local:
            local.load_image(one_file_image(find_tool("coredns"), IMAGE, local.directory / "test.tar"))
            yield local
    except ClusterImpossible as error:
        pytest.skip(str(error))


def test_a_pod_runs_on_each_node_from_an_image_that_was_loaded(cluster: LocalCluster) -> None:
    _echo_pods(cluster)

    for node in cluster.nodes:
        _until(lambda node=node: _pod(cluster, node)["status"].get("phase") == "Running")
    assert sorted(_pod(cluster, node)["spec"]["nodeName"] for node in cluster.nodes) == sorted(cluster.nodes)


def test_a_service_is_found_by_name_and_reached_from_both_nodes(cluster: LocalCluster) -> None:
    """CoreDNS pods answer on port 8080 here (its /health), on the second node only."""
    _echo_pods(cluster)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "echo"},
        "spec": {"selector": {"on": cluster.nodes[1]}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    _kubectl(cluster, "apply", "-f", "-", stdin=json.dumps(service))
    address = json.loads(_kubectl(cluster, "get", "service", "echo", "-o", "json"))["spec"]["clusterIP"]

    for node in cluster.nodes:
        _until(lambda node=node: _get(node, address) == "OK")
        _until(lambda node=node: _resolve(node, DNS_NAME) == address)  # CoreDNS learns of a Service by a watch


def test_a_token_for_the_audience_of_workers_is_reviewed_without_a_flag_for_it(cluster: LocalCluster) -> None:
    _until(lambda: cluster.request("GET", "/api/v1/namespaces/default/serviceaccounts/default"))
    token = cluster.service_account_token("default", "default", audience="tickwheel")

    def review(audience: str) -> bool:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
        spec = {"token": token, "audiences": [audience]}
        answer = cluster.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {**body, "spec": spec})
        return bool(answer["status"].get("authenticated"))

    assert review("tickwheel")
    assert not review("something-else")


def test_a_second_cluster_is_refused_and_the_first_goes_on(cluster: LocalCluster, tmp_path: Path) -> None:
    with pytest.raises(ClusterImpossible, match="has room for one"), LocalCluster(tmp_path):
        pass

    assert cluster.request("GET", "/readyz") == "ok"


def test_a_node_that_is_cut_off_is_not_ready_until_it_is_healed(cluster: LocalCluster) -> None:
    second = cluster.nodes[1]

    cluster.cut(second)
    _until(lambda: _ready(cluster, second) == "Unknown", 60)
    _until(lambda: _ready(cluster, cluster.nodes[0]) == "True")
    cluster.heal(second)

    _until(lambda: _ready(cluster, second) == "True", 60)


def test_down_leaves_nothing_and_a_second_up_finds_the_objects(cluster: LocalCluster) -> None:
    config = {"metadata": {"name": "kept"}, "data": {"a": "1"}}
    cluster.request("POST", "/api/v1/namespaces/default/configmaps", config)

    cluster.down()

    assert _left(cluster.directory) == []
    cluster.up()
    assert cluster.request("GET", "/api/v1/namespaces/default/configmaps/kept")["data"] == {"a": "1"}


def _left(folder: Path) -> list[str]:
    """Processes, mounts, namespaces, links and cgroups of the cluster."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    left = [*Network.present(), *(line for line in links.splitlines() if "tickwheel" in line)]
    left += [line for line in Path("/proc/mounts").read_text().splitlines() if f" {folder}/" in line]
    left += [str(path) for path in Path("/sys/fs/cgroup").glob("**/tickwheel-n*")]
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"{folder}/" in words:
            left.append(words)
    return left


def _echo_pods(cluster: LocalCluster) -> None:
    """One on each node: CoreDNS, only to have something that listens (its /health on 8080)."""
    for node in cluster.nodes:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"echo-{node}", "labels": {"on": node}},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 1,
                "volumes": [{"name": "config", "configMap": {"name": "echo"}}],
                "containers": [
                    {
                        "name": "echo",
                        "image": IMAGE,
                        "imagePullPolicy": "Never",
                        "args": ["-conf", "/config/Corefile", "-dns.port", "5353"],
                        "volumeMounts": [{"name": "config", "mountPath": "/config"}],
                    }
                ],
            },
        }
        config = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "echo"},
            "data": {"Corefile": ".:5353 {\n  health\n}\n"},
        }
        # The account that pods are given is made by the controller-manager, some time after the namespace.
        _until(lambda: cluster.request("GET", "/api/v1/namespaces/default/serviceaccounts/default"))
        _kubectl(cluster, "apply", "-f", "-", stdin=json.dumps(config))
        _kubectl(cluster, "apply", "-f", "-", stdin=json.dumps(pod))


def _pod(cluster: LocalCluster, node: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.request("GET", f"/api/v1/namespaces/default/pods/echo-{node}")
    return found


def _ready(cluster: LocalCluster, node: str) -> str:
    conditions = cluster.request("GET", f"/api/v1/nodes/{node}")["status"]["conditions"]
    return str(next(condition["status"] for condition in conditions if condition["type"] == "Ready"))


def _get(node: str, address: str) -> str:
    code = f"import urllib.request as u; print(u.urlopen('http://{address}/health', timeout=2).read().decode(), end='')"
    return _inside(node, code)


def _resolve(node: str, name: str) -> str:
    """What the cluster's DNS says to a question for the address (RFC 1035), asked from the node."""
    return _inside(
        node,
        "import socket\n"
        f"labels = {name!r}.split('.')\n"
        "q = b'\\x00\\x07\\x01\\x00\\x00\\x01' + bytes(6)\n"
        "q += b''.join(bytes([len(l)]) + l.encode() for l in labels) + b'\\x00\\x00\\x01\\x00\\x01'\n"
        "s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(5); s.sendto(q, ('10.96.0.10', 53))\n"
        "print(socket.inet_ntoa(s.recv(512)[-4:]), end='')\n",
    )


def _inside(node: str, code: str) -> str:
    """Run Python in the node's network."""
    command = ["nsenter", f"--net=/run/netns/{node}", "python3", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout


def _kubectl(cluster: LocalCluster, *arguments: str, stdin: str | None = None) -> str:
    command = [str(find_binaries() / "kubectl"), f"--kubeconfig={cluster.admin_kubeconfig}", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _until(probe: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    error = ""
    while time.monotonic() < deadline:
        try:
            if probe():
                return
        except OSError as failure:
            error = str(failure)
        time.sleep(0.3)
    raise AssertionError(f"not within {timeout_s:g} s {error}")
