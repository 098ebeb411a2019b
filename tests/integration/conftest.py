"""A real API server for the tests of this folder.

etcd and kube-apiserver run as processes of this session, from `KUBEBUILDER_ASSETS` or from the cache that
`make cluster-binaries` fills. `TICKWHEEL_TEST_KUBECONFIG` names an admin of a cluster that exists instead; tests that
end or restart the API server are left out then.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "cluster"))

from tests.integration.installation import create_namespace, install  # noqa: E402

from tickwheel_cluster import Access, ControlPlane, GivenCluster  # noqa: E402


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    """A control plane with the CRDs and the operator's own ServiceAccount and roles."""
    folder = tmp_path_factory.mktemp("control-plane")
    given = os.environ.get("TICKWHEEL_TEST_KUBECONFIG")
    if given:
        existing = GivenCluster(Path(given), folder)
        install(existing)
        yield existing
        return
    with ControlPlane(folder) as control_plane:
        install(control_plane)
        yield control_plane


@pytest.fixture
def namespace(cluster: Access, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own."""
    name = request.node.name.replace("_", "-").split("[")[0].lower()[-55:].strip("-")
    create_namespace(cluster, name)
    return name
