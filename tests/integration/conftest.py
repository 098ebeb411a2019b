"""A real API server for the tests of this folder.

etcd and kube-apiserver run as processes of this session, from `KUBEBUILDER_ASSETS` or from the cache that
`make cluster-binaries` fills. `TICKWHEEL_TEST_KUBECONFIG` names an admin of a cluster that exists instead; tests that
end or restart the API server are left out then.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kubernetes.aio.client import ApiClient
from kubernetes.aio.config import new_client_from_config

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "cluster"))

from tests.integration.installation import create_namespace, install  # noqa: E402
from tests.integration.leading import Objects, Replica  # noqa: E402

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


@pytest.fixture
async def client(cluster: Access) -> AsyncIterator[ApiClient]:
    """An admin's."""
    client = await new_client_from_config(config_file=str(cluster.admin_kubeconfig))
    yield client
    await client.close()


@pytest.fixture
async def objects(client: ApiClient, request: pytest.FixtureRequest) -> Objects:
    """The user's objects, of which there are none yet."""
    subject = request.node.path.stem.removeprefix("test_").replace("_", "-")
    objects = Objects(client, f"{subject}-{secrets.token_hex(4)}")
    await objects.open()
    return objects


@pytest.fixture
async def replica(client: ApiClient, objects: Objects, tmp_path: Path) -> AsyncIterator[Replica]:
    """Who serves them."""
    replica = Replica(client, objects.namespace, tmp_path / "ledger.sqlite")
    await replica.start()
    yield replica
    await replica.stop()
