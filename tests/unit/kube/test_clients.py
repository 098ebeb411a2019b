"""The operator's clients of the API server: none waits for another, and credentials that cannot be read are told."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path

import pytest
from aiohttp import web
from kubernetes.aio.config import incluster_config

from tickwheel_operator.kube.clients import ApiClients, CredentialsUnreadable, open_clients
from tickwheel_operator.kube.errors import ApiUnavailable
from tickwheel_operator.tls.authority import make_authority, pem


class ApiServer:
    """Answers at once, but for what is asked under `/slow`."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.slow = 0
        self.tokens: list[str] = []

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self.tokens.append(request.headers.get("Authorization", ""))
        if request.path == "/slow":
            self.slow += 1
            await self.gate.wait()
        return web.json_response({})


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    server = ApiServer()
    runner = web.ServerRunner(web.Server(server.answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"  # type: ignore[attr-defined]
    yield server
    server.gate.set()
    await runner.cleanup()


def kubeconfig(folder: Path, url: str, user: dict[str, object]) -> str:
    file = folder / "kubeconfig"
    context = {"cluster": "c", "user": "u"}
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": "x", "contexts": [{"name": "x", "context": context}],
        "clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": user}],
    }  # fmt: skip
    file.write_text(json.dumps(content))
    return str(file)


async def test_no_number_of_requests_through_one_client_delays_those_of_the_others(api, tmp_path):
    async with open_clients(kubeconfig(tmp_path, api.url, {"token": "t"})) as clients:
        reviews = clients.reviews
        flood = [asyncio.create_task(reviews.request("POST", "/slow", what="review", timeout_s=60)) for _ in range(300)]
        async with asyncio.timeout(30):
            while api.slow < 64:
                await asyncio.sleep(0.01)
        for field in fields(ApiClients):
            if field.name != "reviews":
                client = getattr(clients, field.name)
                assert (await client.request("GET", "/", what=field.name, timeout_s=30)).ok
        assert api.slow == 64, "no more connections than it may have"
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)


async def test_credentials_that_cannot_be_read_are_an_error_that_callers_know_and_come_back(tmp_path, monkeypatch):
    """In a pod: the token's file, which is read again when the one in memory is old; here it always is."""
    token, authority = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("first")
    authority.write_bytes(pem([make_authority(1_790_000_000_000, 3_600_000).certificate]))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authority))
    old = property(lambda self: datetime.datetime(2020, 1, 1), lambda self, at: None)  # noqa: DTZ001
    monkeypatch.setattr(incluster_config.InClusterConfigLoader, "token_expires_at", old, raising=False)

    async with open_clients("") as clients:

        async def shown() -> str:
            settings = await clients.objects.configuration.auth_settings()
            return str(settings["BearerToken"]["value"])

        assert [await shown(), await shown()] == ["bearer first"] * 2
        for wrong in (lambda: token.write_text(""), token.unlink):
            wrong()
            with pytest.raises(CredentialsUnreadable, match="credentials cannot be read"):
                await shown()
            with pytest.raises(ApiUnavailable, match="credentials cannot be read"):
                await clients.lease.request("GET", "/", what="get", timeout_s=30)
            with pytest.raises(ApiUnavailable, match="credentials cannot be read"):
                async for _ in clients.lease.lines("/", what="watch", query={}, timeout_s=30):
                    pass
        token.write_text("second")
        assert await shown() == "bearer second"
