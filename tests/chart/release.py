"""A release of the chart on an API server without nodes: everything but the pods."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from tests.chart.rendering import CHART, NAMESPACE, RELEASE
from tests.e2e.kube import Kube

__all__ = ["Release"]


class Release:
    """Helm's commands about the one release of a test."""

    def __init__(self, kube: Kube) -> None:
        self.kube = kube

    def install(self, values: dict[str, Any] | None = None, *, chart: Path = CHART) -> None:
        self._run("install", values, chart, "--create-namespace")

    def upgrade(self, values: dict[str, Any] | None = None, *, chart: Path = CHART) -> None:
        self._run("upgrade", values, chart)

    def uninstall(self) -> None:
        self.kube.helm("uninstall", RELEASE, "-n", NAMESPACE)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.kube.helm("status", RELEASE, "-n", NAMESPACE, "-o", "json"))
        return status

    def crds(self) -> set[str]:
        """Names of our CRDs that there are."""
        names = (crd["metadata"]["name"] for crd in self.kube.items("crd"))
        return {name for name in names if name.endswith(".tickwheel.io")}

    def remove(self, *namespaces: str) -> None:
        """The release, and the objects of our kinds in its namespace and in these. CRDs stay: API servers take long to
        delete them."""
        with contextlib.suppress(AssertionError):  # it was not installed
            self.uninstall()
        kinds = ",".join(name for name in self.crds())
        for namespace in (NAMESPACE, *namespaces) if kinds else ():
            self.kube.kubectl("delete", kinds, "--all", "-n", namespace)

    def _run(self, command: str, values: dict[str, Any] | None, chart: Path, *arguments: str) -> None:
        given = [f"--set-json={name}={json.dumps(value)}" for name, value in (values or {}).items()]
        # No node makes the pods ready: only the API server's word is waited for.
        self.kube.helm(command, RELEASE, str(chart), "-n", NAMESPACE, *arguments, *given)
