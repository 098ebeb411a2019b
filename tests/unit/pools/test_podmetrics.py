"""What pods use, read as a metrics server gives it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.pools.podmetrics import PodMetrics, PoolUsage, read_usage

KEY = ("shops", "shop")


def measured(name: str, *containers: tuple[str, str], pool: str = "shop") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "shops", "labels": {"tickwheel.io/pool": pool}},
        "containers": [{"name": "worker", "usage": {"cpu": cpu, "memory": memory}} for cpu, memory in containers],
    }


LIST = {
    "kind": "PodMetricsList",
    "items": [
        measured("a", ("120345678n", "158104Ki"), ("1m", "1Mi")),
        measured("b", ("0", "150Mi")),
        measured("other", ("2", "1Gi"), pool="else"),
    ],
}


def test_pods_and_their_containers_are_summed_by_pool() -> None:
    usage = read_usage(LIST)
    assert usage[KEY] == PoolUsage(121, (158_104 + 1024 + 150 * 1024) * 1024, 2)
    assert (usage[KEY].cpu, usage[KEY].memory) == ("120m", "300Mi")
    assert (usage["shops", "else"].cpu, usage["shops", "else"].memory) == ("2000m", "1000Mi")


def test_what_cannot_be_read_counts_as_nothing() -> None:
    assert read_usage({"items": None}) == {}
    assert read_usage({"items": [measured("a", ("many", "150Mi"))]})[KEY].cpu_millis == 0
    assert read_usage({"items": [{"metadata": {"name": "a", "namespace": "n"}, "containers": []}]}) == {}


@pytest.mark.parametrize(
    ("millis", "shown"), [(0, "0m"), (7, "7m"), (99, "99m"), (124, "120m"), (1_251, "1300m"), (98_765, "99000m")]
)
def test_two_digits_count(millis: int, shown: str) -> None:
    assert PoolUsage(millis, 0, 1).cpu == shown


Handler = Callable[[web.Request], Awaitable[web.Response]]


class Server:
    """An API server that answers as it is told."""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        if self.status != 200:
            return web.json_response({"reason": "ServiceUnavailable", "message": "no"}, status=self.status)
        return web.json_response(LIST)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    application = web.Application()
    application.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[ApiClient]:
    async with ApiClient(Configuration(host=server.url)) as client:
        yield client


async def test_a_change_is_told_and_the_end_of_the_term_forgets(server: Server, client: ApiClient) -> None:
    changed: list[tuple[str, str]] = []
    metrics = PodMetrics(KubeClient(client), changed=lambda namespace, name: changed.append((namespace, name)))
    metrics.lead()
    await metrics.poll()
    assert server.asked == ["/apis/metrics.k8s.io/v1beta1/pods?labelSelector=tickwheel.io/pool"]
    assert sorted(changed) == [("shops", "else"), KEY]
    await metrics.poll()
    assert len(changed) == 2, "the same figures are no change"
    assert metrics.usage(*KEY) is not None
    metrics.follow()
    assert metrics.usage(*KEY) is None


async def test_only_the_namespaces_that_are_served_are_asked(server: Server, client: ApiClient) -> None:
    await PodMetrics(KubeClient(client), namespaces=("a", "b")).poll()
    assert [path.partition("?")[0].partition("v1beta1")[2] for path in server.asked] == [
        "/namespaces/a/pods",
        "/namespaces/b/pods",
    ]


@pytest.mark.parametrize("status", [403, 404, 503])
async def test_a_cluster_without_a_metrics_server_is_told_of_once(
    server: Server, client: ApiClient, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.INFO)
    metrics = PodMetrics(KubeClient(client))
    metrics.lead()
    await metrics.poll()
    server.status = status
    await metrics.poll()
    await metrics.poll()
    assert metrics.usage(*KEY) is None, "figures that nobody measures any more are forgotten"
    assert len(caplog.records) == 1
    assert f"{status} ServiceUnavailable: no" in caplog.text
    server.status = 200
    await metrics.poll()
    assert metrics.usage(*KEY) is not None
    assert "can be read now" in caplog.records[-1].message
