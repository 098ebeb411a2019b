"""What may come of a request: each answer, and each way to get none, is one error that says whether it was done."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from tickwheel_operator.kube.client import KubeClient
from tickwheel_operator.kube.errors import ApiError, ApiRefused, ApiUnanswered, ApiUnavailable, ApiUncertain


class Server:
    """Answers what its test says, or does not."""

    def __init__(self) -> None:
        self.status = 200
        self.body = b"{}"
        self.hangs_up = self.waits = False
        self.got: list[web.BaseRequest] = []

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.got.append(request)
        await request.read()
        if self.hangs_up:
            assert request.transport is not None
            request.transport.abort()
        if self.waits:
            await asyncio.sleep(30)
        return web.Response(status=self.status, body=self.body)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    runner = web.ServerRunner(web.Server(server.answer), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"  # type: ignore[attr-defined]
    yield server
    await runner.cleanup()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[KubeClient]:
    async with ApiClient(Configuration(host=server.url)) as api_client:  # type: ignore[attr-defined]
        yield KubeClient(api_client)


@pytest.mark.parametrize(
    ("statuses", "error"),
    [
        ((401, 429, 503), ApiUnavailable),
        ((408, 500, 502, 504), ApiUncertain),
        ((400, 403, 404, 405, 409, 410, 413, 415, 422), ApiRefused),
    ],
)
async def test_each_answer_that_is_no_yes_says_whether_it_was_carried_out(client, server, statuses, error):
    server.body = json.dumps({"kind": "Status", "reason": "Because", "message": "you cannot do it"}).encode()
    for status in statuses:
        server.status = status
        with pytest.raises(
            ApiError, match=f"make it: the API server answers {status} Because: you cannot do it"
        ) as caught:
            await client.call("POST", "/x", what="make it", body={}, hint="; ask for the role")
        assert type(caught.value) is error
        assert ("ask for the role" in str(caught.value)) is (status == 403)
        assert isinstance(caught.value, ApiUnanswered) is (error is not ApiRefused)
        if isinstance(caught.value, ApiRefused):
            assert (caught.value.status, caught.value.reason, caught.value.message) == (
                status,
                "Because",
                "you cannot do it",
            )


async def test_a_403_of_a_quota_or_a_policy_does_not_speak_of_rights(client, server):
    server.status, server.body = 403, b'{"kind":"Status","message":"exceeded quota: pods"}'
    with pytest.raises(ApiRefused) as caught:
        await client.call("POST", "/x", what="make it", body={}, hint="; ask for the role")
    assert str(caught.value) == "make it: the API server answers 403: exceeded quota: pods"


async def test_a_server_that_cannot_be_reached_has_certainly_not_carried_it_out():
    async with ApiClient(Configuration(host="http://127.0.0.1:1")) as api_client:
        with pytest.raises(ApiUnavailable, match="cannot be reached"):
            await KubeClient(api_client).request("POST", "/x", what="make it", body={})


@pytest.mark.parametrize(("how", "words"), [("hangs_up", "the connection to"), ("waits", "did not answer")])
async def test_a_server_that_got_the_request_and_did_not_answer_may_have_carried_it_out(client, server, how, words):
    setattr(server, how, True)
    with pytest.raises(ApiUncertain, match=words):
        await client.request("POST", "/x", what="make it", body={}, timeout_s=0.2)
    assert len(server.got) == 1, "nothing is sent twice by itself"


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b"7"])
async def test_an_answer_that_cannot_be_read_may_have_been_carried_out(client, server, body):
    server.body = body
    with pytest.raises(ApiUncertain, match="make it: the API server's answer"):
        await client.call("POST", "/x", what="make it", body={})


async def test_an_answer_that_is_nested_too_deeply_is_cut(client, server):
    server.body = b'{"a":1,"deep":' + b"[" * 5_000 + b"]" * 5_000 + b"}"
    assert (await client.call("GET", "/x", what="get it"))["a"] == 1


async def test_the_watch_of_what_may_not_be_seen_is_refused(client, server):
    server.status, server.body = 403, b'{"kind":"Status","reason":"Forbidden"}'
    with pytest.raises(ApiRefused):
        async for _ in client.lines("/x", what="watch it", query={}, timeout_s=5):
            pass
