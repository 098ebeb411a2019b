"""A control plane of this folder's own: the chart is installed into it and removed from it, CRDs and all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.chart.release import Release
from tests.e2e.kube import Kube

from tickwheel_cluster import ControlPlane, find_binaries
from tickwheel_cluster.binaries import find_tool


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server with nothing on it."""
    with ControlPlane(tmp_path_factory.mktemp("chart"), unsafe_no_fsync=True) as control_plane:
        yield control_plane


@pytest.fixture(scope="session")
def kube(cluster: ControlPlane) -> Kube:
    return Kube(cluster.admin_kubeconfig, find_binaries() / "kubectl", find_tool("helm"), cluster.directory / "cache")


@pytest.fixture
def release(kube: Kube) -> Iterator[Release]:
    """The chart's release, not installed yet. Afterwards nothing of it is left but the CRDs."""
    release = Release(kube)
    yield release
    release.remove("shop")
