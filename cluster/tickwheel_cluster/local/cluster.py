"""A control plane and two nodes on this machine: up, down, images in, and a node cut off.

    cluster = LocalCluster(folder)
    cluster.up()            # idempotent; 20 s from binaries to Ready nodes
    cluster.load_image(tar)
    cluster.cut(cluster.nodes[1]); cluster.heal(cluster.nodes[1])
    cluster.down()          # all processes, namespaces, mounts and cgroups; the folder's data stays

All state is in the folder. One such cluster runs on a machine at a time, since its network's names are fixed; which
folder and process it belongs to is written down where the next one looks. What a killed process left is removed first.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import subprocess
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tickwheel_cluster.access import Access
from tickwheel_cluster.binaries import NODE_MODULES, find_binaries, find_tool
from tickwheel_cluster.local import addons
from tickwheel_cluster.local.archives import one_file_image
from tickwheel_cluster.local.network import Network
from tickwheel_cluster.local.node import PAUSE_IMAGE, Node, unmount
from tickwheel_cluster.local.pki import kubeconfig, write_keys
from tickwheel_cluster.local.processes import end_all, log_tail, remove_cgroups, start
from tickwheel_cluster.local.requirements import ClusterImpossible, require

__all__ = ["LocalCluster"]

_OWNER = Path("/run/tickwheel-cluster.json")
"""Which folder the machine's cluster is in, and the process that must live for it to be in use (0: until `down`)."""
_PORT = 6443
_ETCD = "http://127.0.0.1:2379"
_SERVICES = "10.96.0.0/16"
_API_SERVICE, _DNS_SERVICE = "10.96.0.1", "10.96.0.10"
_READY_S = 120.0
_AUDIENCE = "https://kubernetes.default.svc"


class LocalCluster(Access):
    """The cluster of one folder. As a context manager it is down at the end."""

    def __init__(
        self, directory: Path, *, nodes: int = 2, keep: bool = False, tell: Callable[[str], None] = print
    ) -> None:
        """`keep`: it goes on when this process has ended. `tell` hears of each step."""
        self.directory = directory.resolve()
        self.admin_kubeconfig = self.directory / "admin.kubeconfig"
        self._network = Network(nodes)
        self._members = [Node(self.directory, number) for number in self._network.numbers]
        self._keep = keep
        self._tell = tell
        self._pki = self.directory / "pki"
        self._logs = self.directory / "logs"

    @classmethod
    def kept(cls) -> LocalCluster | None:
        """The one that `make cluster-up` left running on this machine."""
        owner = _owner()
        if owner is None or owner["process"]:
            return None
        cluster = cls(Path(owner["directory"]), keep=True)
        return cluster if cluster._runs() else None

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def nodes(self) -> list[str]:
        """Names of the nodes; the first one has the control plane."""
        return [node.name for node in self._members]

    @property
    def url(self) -> str:
        return f"https://{self._members[0].address}:{_PORT}"

    @property
    def ca_file(self) -> Path:
        return self._pki / "ca.crt"

    @property
    def signing_key(self) -> Path:
        """Of service account tokens: for tests that need one that the API server would not give."""
        return self._pki / "sa.key"

    def up(self) -> None:
        """Start whatever does not run. Raises `ClusterImpossible` where this machine cannot, or is taken."""
        require()
        if self._runs():
            self._tell("the cluster runs already")
            return
        self._take_machine()
        for module in NODE_MODULES:
            _build(module)
        find_binaries()
        self._logs.mkdir(parents=True, exist_ok=True)
        self._tell("network and keys")
        self._network.up()
        write_keys(self._pki, {node.name: node.address for node in self._members}, _API_SERVICE)
        self._tell("control plane")
        self._start_control_plane()
        self._tell(f"{len(self._members)} nodes")
        proxy = kubeconfig(self.directory / "proxy.kubeconfig", self._pki, "proxy", self.url)
        for node in self._members:
            own = kubeconfig(self.directory / f"{node.name}.kubeconfig", self._pki, node.name, self.url)
            node.start(self._pki, own, proxy, self._logs)
        self._load_own_images()
        self._until("the nodes", self._nodes_ready)
        self._tell("DNS and metrics")
        self._kubectl_apply(addons.manifests(self.nodes[0], _DNS_SERVICE))
        self._until("DNS", self._dns_ready)
        self._tell("the cluster is ready")

    def down(self) -> None:
        """Stop everything that was started, and nothing else. The data stays."""
        owner = _owner()
        if owner is not None and owner["directory"] != str(self.directory):
            return
        end_all(self.directory)
        unmount(self.directory)
        self._network.down()
        remove_cgroups()
        _OWNER.unlink(missing_ok=True)

    def load_image(self, archive: Path) -> None:
        """Import a `docker save` or OCI archive into every node."""
        for node in self._members:
            node.load(archive.resolve())

    def cut(self, node: str) -> None:
        """Cut the node off from all others; its processes run on. Not the first one: that is the control plane's."""
        self._network.cut(self._number(node))

    def heal(self, node: str) -> None:
        """Connect it again."""
        self._network.heal(self._number(node))

    def _number(self, node: str) -> int:
        return next(member.number for member in self._members if member.name == node)

    # --- whose the machine is ---

    def _runs(self) -> bool:
        owner = _owner()
        if owner is None or owner["directory"] != str(self.directory) or not Network.present():
            return False
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.request("GET", "/readyz", timeout_s=2)
            return self._nodes_ready()
        return False

    def _take_machine(self) -> None:
        owner = _owner()
        if owner is not None and owner["directory"] != str(self.directory):
            if not owner["process"] or _is_alive(owner["process"]):
                raise ClusterImpossible(
                    f"a cluster runs in {owner['directory']}, and this machine has room for one: `make cluster-down`"
                    " ends it (or end the test that it belongs to)"
                )
            self._tell(f"removing what process {owner['process']} left")
            LocalCluster(Path(owner["directory"]), tell=self._tell).down()
        elif Network.present():
            end_all(self.directory)
            unmount(self.directory)
            remove_cgroups()
        process = 0 if self._keep else os.getpid()
        _OWNER.write_text(json.dumps({"directory": str(self.directory), "process": process}))

    # --- the control plane ---

    def _start_control_plane(self) -> None:
        namespace, pki = self.nodes[0], self._pki
        binaries = find_binaries()
        start(
            namespace,
            "etcd",
            [
                str(binaries / "etcd"),
                f"--data-dir={self.directory / 'etcd'}",
                f"--listen-client-urls={_ETCD}",
                f"--advertise-client-urls={_ETCD}",
                "--listen-peer-urls=http://127.0.0.1:2380",
                "--auto-compaction-mode=periodic",
                "--auto-compaction-retention=5m",
            ],
            self._logs,
        )
        start(namespace, "kube-apiserver", [str(binaries / "kube-apiserver"), *self._api_server_flags()], self._logs)
        kubeconfig(self.admin_kubeconfig, pki, "admin", self.url)
        self._until("the API server", self._api_ready, "kube-apiserver")
        managers = {
            "kube-controller-manager": (
                "controller-manager",
                [
                    f"--service-account-private-key-file={pki / 'sa.key'}",
                    f"--root-ca-file={pki / 'ca.crt'}",
                    f"--cluster-signing-cert-file={pki / 'ca.crt'}",
                    f"--cluster-signing-key-file={pki / 'ca.key'}",
                    "--use-service-account-credentials",
                    "--node-monitor-grace-period=20s",
                ],
            ),
            "kube-scheduler": ("scheduler", []),
        }
        for program, (name, flags) in managers.items():
            config = kubeconfig(self.directory / f"{name}.kubeconfig", pki, name, self.url)
            common = [f"--kubeconfig={config}", "--leader-elect=false", "--bind-address=127.0.0.1"]
            start(namespace, program, [str(find_tool(program)), *common, *flags], self._logs)

    def _api_server_flags(self) -> list[str]:
        pki = self._pki
        return [
            f"--etcd-servers={_ETCD}",
            "--bind-address=0.0.0.0",
            f"--advertise-address={self._members[0].address}",
            f"--secure-port={_PORT}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--service-account-key-file={pki / 'sa.pub'}",
            f"--service-account-signing-key-file={pki / 'sa.key'}",
            # Only its own audience, as clusters have it by default: TokenReview must do for the workers'.
            f"--service-account-issuer={_AUDIENCE}",
            f"--api-audiences={_AUDIENCE}",
            "--authorization-mode=Node,RBAC",
            f"--service-cluster-ip-range={_SERVICES}",
            "--allow-privileged",
            f"--kubelet-client-certificate={pki / 'apiserver-kubelet.crt'}",
            f"--kubelet-client-key={pki / 'apiserver-kubelet.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={pki / 'ca.crt'}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={pki / 'front-proxy.crt'}",
            f"--proxy-client-key-file={pki / 'front-proxy.key'}",
            "--enable-aggregator-routing",
        ]

    def _load_own_images(self) -> None:
        images = self.directory / "images"
        images.mkdir(exist_ok=True)
        for program, reference in (
            ("pause", PAUSE_IMAGE),
            ("coredns", addons.COREDNS_IMAGE),
            ("metrics-server", addons.METRICS_IMAGE),
        ):
            self.load_image(one_file_image(find_tool(program), reference, images / f"{program}.tar"))

    # --- waiting ---

    def _until(self, what: str, ready: Callable[[], bool], log: str = "kubelet-1") -> None:
        deadline = time.monotonic() + _READY_S
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException, urllib.error.HTTPError):
                if ready():
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{what}: not ready after {_READY_S:.0f} s; the end of {log}.log:\n{log_tail(self._logs, log)}"
                )
            time.sleep(0.2)

    def _api_ready(self) -> bool:
        self.request("GET", "/readyz", timeout_s=2)
        self.request("GET", "/api/v1/namespaces/kube-system", timeout_s=2)
        return True

    def _nodes_ready(self) -> bool:
        nodes = self.request("GET", "/api/v1/nodes", timeout_s=5)["items"]
        ready = {node["metadata"]["name"] for node in nodes if _condition(node, "Ready") == "True"}
        return set(self.nodes) <= ready

    def _dns_ready(self) -> bool:
        found = self.request("GET", "/apis/apps/v1/namespaces/kube-system/deployments/coredns", timeout_s=5)
        return bool(found["status"].get("readyReplicas"))

    def _kubectl_apply(self, objects: list[dict[str, Any]]) -> None:
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        command = [
            str(find_binaries() / "kubectl"), "--kubeconfig", str(self.admin_kubeconfig), "apply", "--server-side",
            "-f", "-",
        ]  # fmt: skip
        done = subprocess.run(command, input=document, capture_output=True, text=True)
        if done.returncode != 0:
            raise OSError(f"the cluster's own objects were not applied: {done.stderr[-2000:]}")

    def _admin(self) -> tuple[ssl.SSLContext, dict[str, str]]:
        tls = ssl.create_default_context(cafile=str(self.ca_file))
        tls.load_cert_chain(self._pki / "admin.crt", self._pki / "admin.key")
        return tls, {}


def _build(module: str) -> None:
    """Build what is missing of a module now, where its progress is seen."""
    program = {
        "kubernetes": "kubelet", "containerd": "containerd", "cni": "bridge",
    }.get(module, module)  # fmt: skip
    find_tool(program)


def _owner() -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(_OWNER.read_text())
    except (OSError, ValueError):
        return None
    return found


def _is_alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def _condition(found: dict[str, Any], name: str) -> str:
    conditions = found.get("status", {}).get("conditions", ())
    return next((c["status"] for c in conditions if c["type"] == name), "")
