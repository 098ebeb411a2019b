"""The two questions to the API server, against HTTP: what is asked, and that no error quotes a token."""

from __future__ import annotations

import pytest
from aiohttp import web
from kubernetes.aio import client as kubernetes_client

from tickwheel_operator.identity.callers import Principal, PrincipalKind
from tickwheel_operator.identity.reviewer import KubernetesReviewer, Review, ReviewUnavailable
from tickwheel_operator.kube.client import KubeClient


@pytest.fixture
async def api_server():
    """An API server that knows the two reviews: the requests that it got, and what it answers."""
    got: list[dict] = []
    answers: dict[str, tuple[int, dict | bytes]] = {}

    async def review(request: web.BaseRequest) -> web.Response:
        body = await request.json()
        got.append(body)
        status, part = answers[request.path.rsplit("/", 1)[1]]
        if isinstance(part, bytes):
            return web.Response(body=part, status=status)
        return web.json_response({**body, **part} if status < 400 else part, status=status)

    runner = web.ServerRunner(web.Server(review))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    configuration = kubernetes_client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    async with kubernetes_client.ApiClient(configuration) as api_client:
        yield KubernetesReviewer(KubeClient(api_client)), got, answers
    await runner.cleanup()


async def test_the_api_server_is_asked_with_the_audience_and_its_answer_is_read(api_server):
    reviewer, got, answers = api_server
    user = {"username": "system:serviceaccount:a:b", "uid": "u", "groups": ["g"], "extra": {"k": ["v"]}}
    answers["tokenreviews"] = (201, {"status": {"authenticated": True, "user": user, "audiences": ["tickwheel"]}})
    review = await reviewer.review_token("the-token", "tickwheel")
    assert got[0]["spec"] == {"token": "the-token", "audiences": ["tickwheel"]}
    assert review == Review(
        authenticated=True,
        username="system:serviceaccount:a:b",
        uid="u",
        groups=("g",),
        extra=(("k", ("v",)),),
        audiences=("tickwheel",),
    )
    answers["tokenreviews"] = (201, {"status": {"error": "expired"}})
    assert (await reviewer.review_token("the-token", "tickwheel")).authenticated is False


async def test_the_api_server_is_asked_whether_the_user_may_create_runs(api_server):
    reviewer, got, answers = api_server
    answers["subjectaccessreviews"] = (201, {"status": {"allowed": False, "reason": "no rule"}})
    principal = Principal(username="alice", kind=PrincipalKind.USER, uid="u", groups=("g",), extra=(("k", ("v",)),))
    assert await reviewer.may_create_runs(principal, "shops") == (False, "no rule")
    assert got[0]["spec"] == {
        "user": "alice",
        "uid": "u",
        "groups": ["g"],
        "extra": {"k": ["v"]},
        "resourceAttributes": {
            "group": "tickwheel.io",
            "resource": "taskruns",
            "verb": "create",
            "namespace": "shops",
        },
    }


async def test_an_api_server_that_refuses_the_review_is_named_without_the_token(api_server):
    reviewer, _, answers = api_server
    answers["tokenreviews"] = (403, {"kind": "Status", "message": "echo of the-token"})
    with pytest.raises(ReviewUnavailable, match="system:auth-delegator") as caught:
        await reviewer.review_token("the-token", "tickwheel")
    assert "the-token" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"not JSON", b"the-token", b"[]", b"{}", b'{"status":null}', b'{"spec":{},"status":{"user":7}}',
        b'{"status":{"authenticated":"the-token"}}', b'{"status":{"authenticated":true,"audiences":"tickwheel"}}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [200, 201])
async def test_an_answer_that_cannot_be_read_is_no_answer(api_server, answer, status):
    reviewer, _, answers = api_server
    answers["tokenreviews"] = answers["subjectaccessreviews"] = (status, answer)
    with pytest.raises(ReviewUnavailable) as caught:
        await reviewer.review_token("the-token", "tickwheel")
    assert "the-token" not in str(caught.value)
    with pytest.raises(ReviewUnavailable):
        await reviewer.may_create_runs(Principal(username="alice", kind=PrincipalKind.USER), "shops")


async def test_an_api_server_that_is_not_there_is_unavailable():
    configuration = kubernetes_client.Configuration(host="http://127.0.0.1:1")
    async with kubernetes_client.ApiClient(configuration) as api_client:
        with pytest.raises(ReviewUnavailable, match="could not be asked"):
            await KubernetesReviewer(KubeClient(api_client), timeout_s=2.0).review_token("the-token", "tickwheel")
