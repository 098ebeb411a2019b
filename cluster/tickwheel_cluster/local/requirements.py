"""Whether this machine can run nodes, and what to do where it cannot. Asked before anything is started."""

from __future__ import annotations

import os
import shutil
import subprocess

__all__ = ["ClusterImpossible", "install_packages", "missing_packages", "require"]

_PROGRAMS = {
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "ethtool": "ethtool",
    "socat": "socat",
    "nsenter": "util-linux",
}
"""What kubelet, kube-proxy and this package call, and the Debian package that has it."""
_PROBE = "tickwheel-probe"


class ClusterImpossible(Exception):
    """This machine cannot run nodes. The message says why, and what would help."""


def missing_packages() -> list[str]:
    """Debian packages that have to be installed."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return sorted(package for program, package in _PROGRAMS.items() if shutil.which(program, path=path) is None)


def install_packages() -> None:
    """Install what is missing, and nothing where nothing is. Raises `ClusterImpossible`."""
    packages = missing_packages()
    if not packages:
        print("nothing is missing")
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ClusterImpossible(
            f"not installed: {', '.join(packages)}; as root on Debian this target installs them, elsewhere use the"
            " system's own package manager"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *packages]):
        if subprocess.run(["apt-get", *command], env=environment).returncode != 0:
            raise ClusterImpossible(f"`apt-get {' '.join(command)}` failed; what it said is above")


def require() -> None:
    """Raises `ClusterImpossible`."""
    if os.geteuid() != 0:
        raise ClusterImpossible(
            "the local cluster makes network namespaces and mounts, which takes root: run it as root, or name another"
            " cluster's kubeconfig in TICKWHEEL_TEST_KUBECONFIG"
        )
    if packages := missing_packages():
        raise ClusterImpossible(f"not installed: {', '.join(packages)}; `make cluster-packages` installs them")
    made = subprocess.run(["ip", "netns", "add", _PROBE], capture_output=True, text=True)
    if made.returncode != 0 and "File exists" not in made.stderr:
        raise ClusterImpossible(f"this machine lets nobody make network namespaces: {made.stderr.strip()}")
    subprocess.run(["ip", "netns", "del", _PROBE], check=False, capture_output=True)
