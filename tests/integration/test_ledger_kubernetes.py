"""The ledger on a real API server: the contracts, what the objects look like, and how the server's errors read."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid

import msgspec
import pytest
from kubernetes.aio.client import ApiClient
from kubernetes.aio.config import new_client_from_config
from tests.contract.ledger import LIMITS, LedgerContract, a_ledger, everything, facts
from tests.contract.segment_store import SegmentStoreContract, a_segment
from tests.integration.installation import create_namespace

from tickwheel_cluster import Access
from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.ledger.kubernetes import KubernetesSegmentStore
from tickwheel_operator.ledger.protocol import (
    LedgerCorrupt,
    SegmentKind,
    StoreRefused,
    StoreUnavailable,
)

_RUN = uuid.uuid4().hex[:6]
_prefixes = (f"t{_RUN}-{number}-" for number in itertools.count())
NAMESPACE = "ledger-tests"


@pytest.fixture(autouse=True)
def place(cluster: Access) -> None:
    create_namespace(cluster, NAMESPACE)


@pytest.fixture
async def stores(client: ApiClient):
    """Each test has a prefix of its own, and with it a ledger of its own."""
    prefix = next(_prefixes)
    return lambda: KubernetesSegmentStore(KubeClient(client), namespace=NAMESPACE, prefix=prefix)


class TestSegmentStore(SegmentStoreContract):
    pass


class TestLedger(LedgerContract):
    pass


@pytest.fixture
def get(client: ApiClient):
    async def get(path: str) -> dict:
        answer = await KubeClient(client).request("GET", path, what="get")
        assert answer.ok, answer.message
        return json.loads(answer.body)

    return get


class TestObjects:
    async def test_two_ledgers_share_a_namespace(self, client):
        one = KubernetesSegmentStore(KubeClient(client), namespace=NAMESPACE, prefix=f"one-{_RUN}-")
        two = KubernetesSegmentStore(KubeClient(client), namespace=NAMESPACE, prefix=f"two-{_RUN}-")
        await one.create(a_segment(1, nonce="one"))
        await two.create(a_segment(1, nonce="two"))
        assert [header.nonce for header in await one.list(0)] == ["one"]
        await one.delete(0, [1])
        assert [header.nonce for header in await two.list(0)] == ["two"]

    async def test_a_person_can_read_what_a_segment_is(self, client, get):
        store = KubernetesSegmentStore(KubeClient(client), namespace=NAMESPACE, prefix=f"read-{_RUN}-")
        ledger = a_ledger(store)
        await ledger.open(4)
        await ledger.append(facts(1))
        await ledger.checkpoint([b"state"], stands_for=ledger.last_sequence)
        found = await get(
            f"/apis/tickwheel.io/v1alpha1/namespaces/{NAMESPACE}/ledgersegments/read-{_RUN}-p0-000000000003"
        )
        assert found["metadata"]["labels"] == {
            "tickwheel.io/ledger": f"read-{_RUN}",
            "tickwheel.io/partition": "0",
            "tickwheel.io/sequence": "3",
            "tickwheel.io/kind": "Checkpoint",
            "tickwheel.io/generation": "3",
        }
        spec = found["spec"]
        assert (spec["partition"], spec["sequence"], spec["kind"], spec["epoch"]) == ("0", 3, "Checkpoint", 5)
        assert (spec["generation"], spec["chunk"], spec["chunks"], spec["version"]) == (3, 0, 1, 1)
        assert "checksum" not in spec or spec["checksum"] == ""
        await ledger.close()

    async def test_an_edited_label_is_corruption(self, client):
        store = KubernetesSegmentStore(KubeClient(client), namespace=NAMESPACE, prefix=f"edited-{_RUN}-")
        await store.create(a_segment(1, kind=SegmentKind.EPOCH))
        path = f"/apis/tickwheel.io/v1alpha1/namespaces/{NAMESPACE}/ledgersegments/edited-{_RUN}-p0-000000000001"
        transport = KubeClient(client)
        found = json.loads((await transport.request("GET", path, what="get")).body)
        found["metadata"]["labels"]["tickwheel.io/kind"] = "Nonsense"
        assert (await transport.request("PUT", path, what="put", body=found)).ok
        with pytest.raises(LedgerCorrupt, match="p0-000000000001: its labels"):
            await store.list(0)
        with pytest.raises(LedgerCorrupt):
            await store.read(0, 1)


class TestErrors:
    async def test_without_a_namespace_the_refusal_says_what_to_mend(self, client):
        store = KubernetesSegmentStore(KubeClient(client), namespace="nowhere")
        with pytest.raises(StoreRefused, match="check that namespace nowhere exists"):
            await store.create(a_segment(1))

    async def test_without_rights_the_refusal_names_them(self, cluster, client):
        account = {"metadata": {"name": "nobody"}}
        await KubeClient(client).request(
            "POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", what="account", body=account
        )
        kubeconfig = cluster.service_account_kubeconfig(NAMESPACE, "nobody")
        async with await new_client_from_config(config_file=str(kubeconfig)) as poor:
            store = KubernetesSegmentStore(KubeClient(poor), namespace=NAMESPACE)
            for call in (store.create(a_segment(1)), store.read(0, 1), store.list(0), store.delete(0, [1])):
                with pytest.raises(StoreRefused, match="grant the operator's ServiceAccount create, get, list and"):
                    await call

    async def test_an_invalid_segment_is_refused(self, client):
        store = KubernetesSegmentStore(KubeClient(client), namespace=NAMESPACE)
        with pytest.raises(StoreRefused, match="apply the CRDs of this release"):
            await store.create(a_segment(1, epoch=-1))

    async def test_too_large_a_segment_is_refused(self, client):
        store = KubernetesSegmentStore(KubeClient(client), namespace=NAMESPACE)
        with pytest.raises(StoreRefused, match=r"lower the ledger's segment size|apply the CRDs"):
            await store.create(a_segment(1, data=bytes(4 * 1024 * 1024)))

    async def test_a_server_that_is_not_there_is_unavailable(self, client):
        client.configuration.host = "https://127.0.0.1:1"
        store = KubernetesSegmentStore(KubeClient(client), namespace=NAMESPACE)
        for call in (store.create(a_segment(1)), store.read(0, 1), store.list(0), store.delete(0, [1])):
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                await call


class TestOutage:
    async def test_appends_through_a_crash_of_the_api_server_are_in_the_log_once_and_in_order(self, cluster, stores):
        limits = msgspec.structs.replace(LIMITS, append_deadline_ms=120_000, retry_max_ms=200)
        ledger = a_ledger(stores(), limits=limits)
        await ledger.open(0)

        async def append() -> None:
            for number in range(400):
                await ledger.append(facts(number))

        appending = asyncio.create_task(append())
        async with asyncio.timeout(60):
            while ledger.last_sequence < 50:
                await asyncio.sleep(0.01)
            cluster.kill_api_server()
            while ledger.stats.retries < 2:
                await asyncio.sleep(0.01)
        # Not in another thread: the process would die with the thread that started it.
        cluster.restart_api_server()
        async with asyncio.timeout(90):
            await appending
        replayed = await everything(await a_ledger(stores(), "b").open(0))
        assert replayed == [fact for number in range(400) for fact in facts(number)]
