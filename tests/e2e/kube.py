"""kubectl and helm as a person types them, against the cluster of these tests."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

__all__ = ["Kube", "is_ready", "until"]

_T = TypeVar("_T")


class Kube:
    """Runs the two programs; a failure is an AssertionError with what they said."""

    def __init__(self, kubeconfig: Path, kubectl: Path, helm: Path, cache: Path) -> None:
        self.kubeconfig = kubeconfig
        self._cache = cache
        self._kubectl = kubectl
        self._helm = helm

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120, check: bool = True) -> str:
        return self._run([str(self._kubectl), f"--cache-dir={self._cache}", *arguments], stdin, timeout, check)

    def helm(self, *arguments: str, timeout: float = 300) -> str:
        return self._run([str(self._helm), *arguments], None, timeout, True)

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(*arguments)["items"]
        return found

    def _run(self, command: list[str], stdin: str | None, timeout: float, check: bool) -> str:
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HELM_CACHE_HOME": str(self._cache)}
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, env=environment)
        if check and done.returncode != 0:
            words = " ".join([Path(command[0]).name, *command[1:]])
            raise AssertionError(f"{words}: exit {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done.stdout if done.returncode == 0 else done.stdout + done.stderr


def until(what: str, probe: Callable[[], _T], timeout: float = 60, every: float = 0.2) -> _T:
    """Wait until `probe` gives something true; what it gave. One that fails is tried again: an API server that gets no
    CPU for seconds refuses even a `kubectl get`."""
    deadline = time.monotonic() + timeout
    while True:
        said = ""
        try:
            if found := probe():
                return found
        except AssertionError as error:
            said = f"; at last {error}"
        assert time.monotonic() < deadline, f"{what}: not within {timeout:g} s{said}"
        time.sleep(every)


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether the pod's condition Ready is True."""
    conditions = pod.get("status", {}).get("conditions", ())
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
