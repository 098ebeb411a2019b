"""One node: containerd, kubelet and kube-proxy, each with folders, sockets and cgroups of its own.

Two kubelets on one machine remove each other's pods where they share a cgroup root, a log folder or a root folder.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from pathlib import Path

from tickwheel_cluster.binaries import find_tool
from tickwheel_cluster.local.network import Network
from tickwheel_cluster.local.processes import CGROUPS, start

__all__ = ["PAUSE_IMAGE", "Node", "unmount"]

PAUSE_IMAGE = "tickwheel.io/pause:1"
_DNS = "10.96.0.10"
_READY_S = 30.0


class Node:
    """The node with this number. Its state is in `<directory>/n<number>`."""

    def __init__(self, directory: Path, number: int) -> None:
        self.number = number
        self.name = Network.namespace(number)
        self.address = Network.address(number)
        self._cluster = directory
        self._own = directory / f"n{number}"
        self._socket = self._own / "containerd.sock"

    def start(self, pki: Path, kubeconfig: Path, proxy_kubeconfig: Path, logs: Path) -> None:
        """Start the three and return; the node becomes Ready some seconds later."""
        self._own.mkdir(parents=True, exist_ok=True)
        self._make_cgroups()
        self._lay_plugins()
        containerd = find_tool("containerd")
        (self._own / "containerd.toml").write_text(self._containerd())
        command = [str(containerd), "-c", str(self._own / "containerd.toml")]
        start(self.name, f"containerd-{self.number}", command, logs, path=containerd.parent)
        self._wait_for_containerd()
        (self._own / "kubelet.json").write_text(json.dumps(self._kubelet(pki)))
        start(
            self.name,
            f"kubelet-{self.number}",
            [
                str(find_tool("kubelet")),
                f"--config={self._own / 'kubelet.json'}",
                f"--kubeconfig={kubeconfig}",
                f"--hostname-override={self.name}",
                f"--node-ip={self.address}",
                f"--root-dir={self._own / 'kubelet'}",
            ],
            logs,
        )
        start(
            self.name,
            f"kube-proxy-{self.number}",
            [
                str(find_tool("kube-proxy")),
                f"--kubeconfig={proxy_kubeconfig}",
                "--proxy-mode=iptables",
                "--cluster-cidr=10.244.0.0/16",
                f"--hostname-override={self.name}",
                "--conntrack-max-per-core=0",
            ],
            logs,
        )

    def load(self, archive: Path) -> None:
        """Import an image into the node's store. Raises OSError with what `ctr` said."""
        command = [str(find_tool("ctr")), "-a", str(self._socket), "-n", "k8s.io", "images", "import", str(archive)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        if done.returncode != 0:
            raise OSError(
                f"{archive} was not imported into {self.name}: {(done.stderr or done.stdout).strip()[-1000:]}"
            )

    def _wait_for_containerd(self) -> None:
        command = [str(find_tool("ctr")), "-a", str(self._socket), "version"]
        deadline = time.monotonic() + _READY_S
        while subprocess.run(command, capture_output=True).returncode != 0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"containerd of {self.name} did not answer within {_READY_S:.0f} s")
            time.sleep(0.1)

    def _lay_plugins(self) -> None:
        """containerd looks for the network's plugins in one folder, and for its configuration in another."""
        plugins, configuration = self._own / "cni" / "bin", self._own / "cni" / "conf"
        plugins.mkdir(parents=True, exist_ok=True)
        configuration.mkdir(parents=True, exist_ok=True)
        for name in ("bridge", "loopback", "host-local", "portmap"):
            if not (plugins / name).exists():
                shutil.copy2(find_tool(name), plugins / name)
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": str(self._own / "cni" / "ipam"),
                "ranges": [[{"subnet": Network.pods(self.number)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        content = {"cniVersion": "1.0.0", "name": "tickwheel", "plugins": [bridge, portmap]}
        (configuration / "10-tickwheel.conflist").write_text(json.dumps(content))

    def _containerd(self) -> str:
        cni = self._own / "cni"
        return f"""version = 3
root = "{self._own}/containerd/root"
state = "{self._own}/containerd/state"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "{self._socket}"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE_IMAGE}"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["{cni}/bin"]
  conf_dir = "{cni}/conf"
"""

    def _kubelet(self, pki: Path) -> dict[str, object]:
        resolver = self._own / "resolv.conf"
        resolver.write_text("# Nothing outside the cluster is looked up.\n")
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.name}",
            "failSwapOn": False,
            "failCgroupV1": False,
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "podLogsDir": str(self._own / "pod-logs"),
            "address": self.address,
            "healthzPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(pki / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(pki / f"{self.name}.crt"),
            "tlsPrivateKeyFile": str(pki / f"{self.name}.key"),
            "clusterDNS": [_DNS],
            "clusterDomain": "cluster.local",
            "resolvConf": str(resolver),
            "nodeStatusUpdateFrequency": "4s",
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "maxPods": 200,
        }

    def _make_cgroups(self) -> None:
        """kubelet expects its root to exist: in every hierarchy of cgroup v1, or once in v2."""
        roots = [CGROUPS] if (CGROUPS / "cgroup.controllers").exists() else sorted(CGROUPS.iterdir())
        for root in roots:
            folder = root / self.name
            with contextlib.suppress(OSError):
                folder.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):
            source, target = CGROUPS / "cpuset" / file, CGROUPS / "cpuset" / self.name / file
            if target.exists():
                target.write_text(source.read_text())


def unmount(directory: Path) -> None:
    """What containerd, kubelet and the pods left mounted in the folder; the pods' namespaces are there too."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    ours = [mount for mount in mounts if mount == str(directory) or mount.startswith(f"{directory}/")]
    for mount in sorted(ours, reverse=True):
        subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
