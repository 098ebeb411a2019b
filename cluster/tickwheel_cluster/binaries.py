"""Where etcd, the API server, a node's programs and Helm come from: the environment, or Go tools in the user's cache.

Each Go module under `tools/` is a group of programs that is built and kept together. The folder of a build is named by
a hash of all that decides it, so that a changed pin builds anew and two checkouts share what is equal. A build happens
in a folder of its own that is renamed when it is whole: a folder that exists is complete, whatever was killed when.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NODE_MODULES", "TOOLS", "BinariesError", "Tool", "build_all", "find_binaries", "find_tool"]

_SOURCES = Path(__file__).resolve().parent.parent / "tools"
_KUBERNETES = "1.36.3"
_VERSION_PACKAGE = "k8s.io/component-base/version"
# Without these the API server calls itself v0.0.0, which kubelets and clients refuse.
_KUBERNETES_FLAGS = " ".join(
    f"-X {_VERSION_PACKAGE}.{name}={value}"
    for name, value in {
        "gitVersion": f"v{_KUBERNETES}",
        "gitMajor": "1",
        "gitMinor": "36",
        "gitTreeState": "clean",
        "gitCommit": "module",
    }.items()
)
_PROGRESS_S = 15


class BinariesError(Exception):
    """The control plane's programs are not to be had. The message says what to install or set."""


@dataclass(frozen=True)
class Tool:
    """One program, built from the Go module in `tools/<module>`."""

    name: str
    module: str
    package: str
    flags: str = ""


def _kubernetes(name: str) -> Tool:
    return Tool(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", _KUBERNETES_FLAGS)


TOOLS = (
    Tool("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    _kubernetes("kube-apiserver"),
    _kubernetes("kubectl"),
)
"""The control plane that tests without pods need."""
_CONTAINERD = "github.com/containerd/containerd/v2/cmd"
_CNI = "github.com/containernetworking/plugins/plugins"
_MORE = (
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubelet"),
    _kubernetes("kube-proxy"),
    Tool("containerd", "containerd", f"{_CONTAINERD}/containerd"),
    Tool("containerd-shim-runc-v2", "containerd", f"{_CONTAINERD}/containerd-shim-runc-v2"),
    Tool("ctr", "containerd", f"{_CONTAINERD}/ctr"),
    Tool("bridge", "cni", f"{_CNI}/main/bridge"),
    Tool("loopback", "cni", f"{_CNI}/main/loopback"),
    Tool("host-local", "cni", f"{_CNI}/ipam/host-local"),
    Tool("portmap", "cni", f"{_CNI}/meta/portmap"),
    Tool("coredns", "coredns", "github.com/coredns/coredns"),
    Tool("metrics-server", "metrics-server", "sigs.k8s.io/metrics-server/cmd/metrics-server"),
    Tool("pause", "pause", "."),
    Tool("helm", "helm", "helm.sh/helm/v4/cmd/helm"),
    Tool("promtool", "prometheus", "github.com/prometheus/prometheus/cmd/promtool"),
)
NODE_MODULES = ("kubernetes", "containerd", "cni", "coredns", "metrics-server", "pause")
"""What a cluster with nodes is made of, beside `TOOLS`."""


def find_binaries(*, build: bool = True) -> Path:
    """The folder that holds the programs.

    `KUBEBUILDER_ASSETS` (the envtest convention) wins; else the cache, which is filled first where `build` allows.
    Raises `BinariesError`.
    """
    given = os.environ.get("KUBEBUILDER_ASSETS")
    if given:
        missing = [tool.name for tool in TOOLS if not (Path(given) / tool.name).exists()]
        if missing:
            raise BinariesError(f"KUBEBUILDER_ASSETS is {given}, but {', '.join(missing)} is not there")
        return Path(given)
    return _found(TOOLS, build=build)


def find_tool(name: str, *, build: bool = True) -> Path:
    """One of the other programs, such as `helm`; with those of its module it is built first where `build` allows.

    Raises `BinariesError`.
    """
    module = next((tool.module for tool in _MORE if tool.name == name), None)
    if module is None:
        raise BinariesError(f"{name} is not one of the cluster's programs: {', '.join(tool.name for tool in _MORE)}")
    return _found(tuple(tool for tool in _MORE if tool.module == module), build=build) / name


def build_all() -> None:
    """Build everything that is not in the cache, once: 4 minutes on two idle cores, 31 on busy ones. Raises
    `BinariesError`."""
    find_binaries()
    for module in dict.fromkeys(tool.module for tool in _MORE):
        find_tool(next(tool.name for tool in _MORE if tool.module == module))


def _found(tools: tuple[Tool, ...], *, build: bool) -> Path:
    folder = _cache() / _key(tools)
    if not folder.exists():
        if not build:
            names = ", ".join(tool.name for tool in tools)
            raise BinariesError(f"{names}: not built yet; run `make cluster-binaries`")
        _build(folder, tools)
    return folder


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "tickwheel" / "binaries"


def _key(tools: tuple[Tool, ...]) -> str:
    digest = hashlib.sha256()
    for module in sorted({tool.module for tool in tools}):
        for name in ("go.mod", "go.sum"):
            digest.update((_SOURCES / module / name).read_bytes())
    digest.update(repr(tools).encode())
    return digest.hexdigest()[:16]


def _build(folder: Path, tools: tuple[Tool, ...]) -> None:
    go = shutil.which("go")
    if go is None:
        raise BinariesError(
            "Go is not installed, and it builds the cluster's programs for the tests: install Go 1.26 or later; for"
            " etcd and kube-apiserver alone, KUBEBUILDER_ASSETS may name a folder that has both"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another process builds them: waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return
        prefix = f"building-{folder.name}-"
        for left in folder.parent.glob(f"{prefix}*"):  # by a build that was killed, for we hold the lock
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=prefix) as work:
            for number, tool in enumerate(tools, start=1):
                _build_tool(go, tool, Path(work), f"[{number}/{len(tools)}] {tool.name}")
            Path(work).chmod(0o755)
            Path(work).rename(folder)
            Path(work).mkdir()


def _build_tool(go: str, tool: Tool, target: Path, title: str) -> None:
    command = [go, "build", "-trimpath", "-ldflags", f"-s -w {tool.flags}", "-o", str(target / tool.name), tool.package]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
    log = target / f"{tool.name}.log"
    started = shown = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=_SOURCES / tool.module, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                time.sleep(0.2)
                now = time.monotonic()
                if sys.stdout.isatty():
                    print(f"\r{title}: building, {now - started:.0f} s", end="", flush=True)
                elif now - shown >= _PROGRESS_S:
                    shown = now
                    print(f"{title}: building, {now - started:.0f} s", flush=True)
        finally:
            if process.poll() is None:  # Ctrl-C: nothing may write into a folder that is about to go
                process.terminate()
                process.wait()
    if process.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise BinariesError(f"{tool.name} was not built:\n{tail}")
    log.unlink()
    print(f"{chr(13) if sys.stdout.isatty() else ''}{title}: built in {time.monotonic() - started:.0f} s", flush=True)
