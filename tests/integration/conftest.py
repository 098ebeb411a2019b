"""A real API server for the tests of this folder.

`TICKWHEEL_TEST_KUBECONFIG` names one that exists (an admin of it); else etcd and kube-apiserver run as processes of
this session, from `KUBEBUILDER_ASSETS` or from the cache that `make cluster-binaries` fills.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "cluster"))

from tests.integration.installation import install  # noqa: E402

from tickwheel_cluster import ControlPlane  # noqa: E402


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with the CRDs and the operator's own ServiceAccount and roles."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as control_plane:
        install(control_plane)
        yield control_plane


@pytest.fixture
def namespace(cluster: ControlPlane, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own."""
    name = request.node.name.replace("_", "-").split("[")[0].lower()[-55:].strip("-")
    subprocess.run(["kubectl", f"--kubeconfig={cluster.admin_kubeconfig}", "create", "namespace", name], check=True)
    return name
