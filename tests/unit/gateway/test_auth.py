"""Who is let in, who may speak for which pool, who may submit, and what the caches hold."""

from __future__ import annotations

import asyncio
import base64
import json
import logging

import pytest
from aiohttp import web
from kubernetes.aio import client as kubernetes_client
from tests.unit.gateway.scripted import NOW_MS, PULL, TOKEN, WORKER, ScriptedBackend, serving
from tests.unit.gateway.test_submit import accept

from tickwheel_operator.gateway.auth import PoolAccess, Principal, PrincipalKind, StaticTokenAuthenticator
from tickwheel_operator.gateway.problems import GatewayProblem
from tickwheel_operator.gateway.token_review import (
    KubernetesReviewer,
    Review,
    ReviewUnavailable,
    SubjectAccessAuthorizer,
    TokenReviewAuthenticator,
)
from tickwheel_operator.pools.ownership import OwnerUnknown, PoolOwner

POOLS = {
    ("shops", "shops"): PoolAccess(uid="u-shops", has_template=False, accounts=frozenset({"shop-worker"})),
    ("shops", "open"): PoolAccess(uid="u-open", has_template=False, accounts=frozenset()),
    ("shops", "own"): PoolAccess(uid="u-own", has_template=True, accounts=frozenset()),
    ("shops", "strict"): PoolAccess(uid="u-strict", has_template=True, accounts=frozenset({"other"})),
}


class ManualClock:
    """Both clocks stand still until a test moves them."""

    def __init__(self) -> None:
        self.elapsed_ms = 0

    def now_ms(self) -> int:
        return NOW_MS + self.elapsed_ms

    def now_us(self) -> int:
        return self.now_ms() * 1_000

    def boot_ms(self) -> int:
        return self.elapsed_ms


class FakeReviewer:
    """Implements `Reviewer` from a table; `KubernetesReviewer` is tested against HTTP below."""

    def __init__(self) -> None:
        self.users = {"good": "system:serviceaccount:shops:shop-worker", "human": "alice"}
        self.audiences: tuple[str, ...] = ("tickwheel",)
        self.pods = {"in-own": "own-1", "in-open": "open-1", "in-none": "none-1", "in-strict": "strict-1"}
        self.users.update(dict.fromkeys(self.pods, self.users["good"]))
        self.allowed = True
        self.down = False
        self.asked: list[str] = []

    async def review_token(self, token: str, audience: str) -> Review:
        self.asked.append(token)
        await asyncio.sleep(0)
        if self.down:
            raise ReviewUnavailable("the API server could not be reached to create a TokenReview: OSError")
        username = self.users.get(token.split(".")[0])
        if username is None:
            return Review(authenticated=False, error=f"invalid bearer token {token}")
        pod = self.pods.get(token)
        prefix = "authentication.kubernetes.io/pod"
        extra = ((f"{prefix}-name", (pod,)), (f"{prefix}-uid", (f"uid-of-{pod}",))) if pod else ()
        return Review(authenticated=True, username=username, groups=("g",), audiences=self.audiences, extra=extra)

    async def may_create_runs(self, principal: Principal, namespace: str) -> tuple[bool, str]:
        self.asked.append(f"{principal.username} in {namespace}")
        if self.down:
            raise ReviewUnavailable("the API server could not be reached to create a SubjectAccessReview: OSError")
        return self.allowed, "" if self.allowed else "no rule"


class FakeOwners:
    """Implements `Owners` from a table; `PodOwners` is tested in tests/unit/pools."""

    def __init__(self) -> None:
        self.owners: dict[str, PoolOwner | None] = {
            "uid-of-own-1": PoolOwner("own", "u-own"),
            "uid-of-open-1": PoolOwner("open", "u-open"),
            "uid-of-none-1": None,
            "uid-of-strict-1": PoolOwner("strict", "u-strict"),
        }
        self.down = False

    async def owner(self, namespace: str, pod: str, pod_uid: str) -> PoolOwner | None:
        if self.down:
            raise OwnerUnknown(f"cannot look up the owner of Pod {namespace}/{pod}")
        return self.owners[pod_uid]


@pytest.fixture
def owners() -> FakeOwners:
    return FakeOwners()


@pytest.fixture
def reviewer() -> FakeReviewer:
    return FakeReviewer()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def authenticator(reviewer, owners, clock) -> TokenReviewAuthenticator:
    return TokenReviewAuthenticator(reviewer, lambda namespace, pool: POOLS.get((namespace, pool)), owners, clock=clock)


def jwt(user: str, expires_ms: int) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": expires_ms / 1000}).encode()).rstrip(b"=").decode()
    return f"{user}.{claims}.signature"


async def refused(awaitable) -> GatewayProblem:
    with pytest.raises(GatewayProblem) as caught:
        await awaitable
    return caught.value


# --- over HTTP -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/pull", "/v1/report", "/v1/tasks/a/b/runs"])
@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", "Bearer \udcff"])
async def test_whoever_has_not_the_token_is_told_how_to_show_it(path, header):
    backend = ScriptedBackend()
    async with serving(backend) as (caller, _):
        headers = {} if header is None else {"Authorization": header}
        async with caller.session.post(caller.base + path, data=b"not read", headers=headers) as response:
            problem = await response.json(content_type=None)
            assert response.status == 401
            assert response.headers["WWW-Authenticate"] == 'Bearer realm="tickwheel"'
    assert problem["type"] == "urn:tickwheel:problem:unauthenticated"
    assert "Authorization: Bearer" in problem["detail"] and TOKEN not in problem["detail"]
    assert backend.commands == []


def test_an_empty_static_token_is_refused():
    with pytest.raises(ValueError, match="empty"):
        StaticTokenAuthenticator("")


@pytest.mark.parametrize(
    ("token", "namespace", "pool", "status", "words"),
    [
        ("good", "shops", "shops", 200, ""),
        ("good", "shops", "open", 200, ""),
        ("good", "shops", "none", 404, "there is no WorkerPool 'none' in namespace 'shops'"),
        ("good", "other", "shops", 403, "its own namespace 'shops', not 'other'"),
        ("good", "other", "none", 403, "its own namespace"),
        ("human", "shops", "shops", 403, "alice is not a ServiceAccount"),
        ("intruder", "shops", "shops", 403, "admits shop-worker"),
    ],
)
async def test_a_worker_speaks_only_for_pools_of_its_namespace_that_admit_it(
    authenticator, reviewer, token, namespace, pool, status, words
):
    reviewer.users["intruder"] = "system:serviceaccount:shops:default"
    worker = {**WORKER, "namespace": namespace, "pool": pool}
    async with serving(ScriptedBackend(), authenticator=authenticator) as (caller, _):
        pull, problem, _ = await caller.post("/v1/pull", {**PULL, "worker": worker}, token=token)
        report, _, _ = await caller.post("/v1/report", {"worker": worker}, token=token)
    assert (pull, report) == (status, status)
    assert words in problem.get("detail", "")


# --- which pods may speak for which pool -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "pool", "name", "words"),
    [
        # A pool with a template: its own pods, each by its own name.
        ("in-own", "own", "own-1", ""),
        ("in-own", "own", "own-2", "calls itself 'own-2'"),
        ("in-open", "own", "open-1", "belongs to WorkerPool 'open'"),
        ("in-none", "own", "none-1", "belongs to no WorkerPool"),
        ("good", "own", "own-1", "is bound to no pod"),
        # Its list of accounts counts as well.
        ("in-strict", "strict", "strict-1", "admits other"),
        # A pool without one: whom it admits, by any name, but for the pods of other pools.
        ("good", "open", "any", ""),
        ("in-none", "open", "any", ""),
        ("in-open", "open", "any", ""),
        ("in-own", "open", "own-1", "belongs to WorkerPool 'own'"),
        ("in-own", "shops", "own-1", "belongs to WorkerPool 'own'"),
    ],
)
async def test_a_worker_cannot_claim_a_pool_that_is_not_its_own(authenticator, token, pool, name, words):
    worker = {**WORKER, "pool": pool, "name": name}
    async with serving(ScriptedBackend(), authenticator=authenticator) as (caller, gateway):
        for _ in range(2):  # from the caches, too
            pull, problem, _ = await caller.post("/v1/pull", {**PULL, "worker": worker}, token=token)
            report, _, _ = await caller.post("/v1/report", {"worker": worker}, token=token)
            assert (pull, report) == ((403, 403) if words else (200, 200))
        assert words in problem.get("detail", "")
        assert sum(gateway.refusals.counts.values()) == (4 if words else 0)


async def test_a_pod_of_an_earlier_pool_of_that_name_is_refused(authenticator, owners):
    owners.owners["uid-of-own-1"] = PoolOwner("own", "uid-before-it-was-made-anew")
    worker = {**WORKER, "pool": "own", "name": "own-1"}
    async with serving(ScriptedBackend(), authenticator=authenticator) as (caller, _):
        status, problem, _ = await caller.post("/v1/pull", {**PULL, "worker": worker}, token="in-own")
    assert status == 403 and "an earlier WorkerPool 'own'" in problem["detail"]


async def test_an_owner_that_cannot_be_looked_up_lets_nobody_in(authenticator, owners):
    worker = {**WORKER, "pool": "own", "name": "own-1"}
    owners.down = True
    async with serving(ScriptedBackend(), authenticator=authenticator) as (caller, gateway):
        status, problem, headers = await caller.post("/v1/pull", {**PULL, "worker": worker}, token="in-own")
        assert (status, headers["Retry-After"]) == (503, "1") and "shops/own-1" in problem["detail"]
        assert gateway.refusals.counts["CannotBeChecked"] == 1
        owners.down = False
        assert (await caller.post("/v1/pull", {**PULL, "worker": worker}, token="in-own"))[0] == 200


async def test_a_user_token_that_claims_a_pod_has_none(authenticator, reviewer):
    """Only of a ServiceAccount does the API server say it: of another user, anybody may have said so."""
    reviewer.users["human"], reviewer.pods["human"] = "alice", "own-1"
    principal = await authenticator.authenticate("human", {})
    assert (principal.pod, principal.pod_uid) == ("", "")


# --- the log ---------------------------------------------------------------------------------------------------------


async def test_each_refusal_is_one_line_that_names_the_reason_and_a_repeated_one_is_not_repeated(authenticator, caplog):
    worker = {**WORKER, "pool": "own", "name": "open-1"}
    async with serving(ScriptedBackend(), authenticator=authenticator) as (caller, gateway):
        for _ in range(5):
            await caller.post("/v1/pull", {**PULL, "worker": worker}, token="in-open")
        assert gateway.refusals.counts["PodOfAnotherPool"] == 5
    lines = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert len(lines) == 1
    for word in ("PodOfAnotherPool", "POST '/v1/pull'", "127.0.0.1", "shops/open-1", "'open'", "'own'"):
        assert word in lines[0]


async def test_a_refused_token_is_told_by_its_own_words_which_are_marked_and_cut_short(authenticator):
    claims = {
        "exp": NOW_MS / 1000 - 90,
        "aud": ["tickwheel"],
        "kubernetes.io": {"namespace": "shops", "pod": {"name": "a\n" + "x" * 500}, "serviceaccount": {"name": "w"}},
    }
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
    detail = (await refused(authenticator.authenticate(f"x.{payload}.y", {}))).detail
    assert "expired 90 s ago" in detail and "as it says itself" in detail
    assert "pod shops/a?" in detail and "x" * 63 not in detail
    claims = {"aud": "https://kubernetes.default.svc", "exp": NOW_MS / 1000 + 90}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
    problem = await refused(authenticator.authenticate(f"x.{payload}.y", {}))
    assert "(it says it is for https://kubernetes.default.svc)" in problem.detail


@pytest.mark.parametrize("claims", ['{"exp":1e308}', '{"exp":-1}', '{"aud":[1]}', "[" * 5_000, '{"kubernetes.io":3}'])
async def test_a_token_with_odd_claims_is_refused_like_any_other(authenticator, claims):
    payload = base64.urlsafe_b64encode(claims.encode()).decode()
    assert (await refused(authenticator.authenticate(f"x.{payload}.y", {}))).status == 401


async def test_submitting_asks_for_permission_in_the_tasks_namespace(authenticator, reviewer, clock):
    authorizer = SubjectAccessAuthorizer(reviewer, clock=clock)
    backend = ScriptedBackend(accept)
    async with serving(backend, authenticator=authenticator, authorizer=authorizer) as (caller, _):
        first, _, _ = await caller.post("/v1/tasks/shops/t/runs", token="human")
        reviewer.allowed = False
        cached, _, _ = await caller.post("/v1/tasks/shops/t/runs", token="human")
        other, problem, _ = await caller.post("/v1/tasks/other/t/runs", token="human")
        clock.elapsed_ms += 10_000
        later, _, _ = await caller.post("/v1/tasks/shops/t/runs", token="human")
    assert (first, cached, other, later) == (200, 200, 403, 403)
    assert reviewer.asked == ["human", "alice in shops", "alice in other", "alice in shops"]
    assert "alice may not create taskruns.tickwheel.io in namespace 'other': no rule" in problem["detail"]
    assert len(backend.commands) == 2


async def test_no_token_reaches_a_log_or_an_answer(authenticator, reviewer, caplog):
    caplog.set_level(logging.DEBUG)
    secret = "s3cr3t-token-of-a-worker"
    async with serving(ScriptedBackend(), authenticator=authenticator) as (caller, _):
        _, refusal, _ = await caller.post("/v1/pull", PULL, token=secret)
        reviewer.down = True
        _, unavailable, _ = await caller.post("/v1/pull", PULL, token=secret + "2")
    assert reviewer.asked == [secret, secret + "2"]
    assert secret not in caplog.text + str(refusal) + str(unavailable)
    assert not any(secret in repr(part) for part in vars(authenticator).values())


# --- the caches ------------------------------------------------------------------------------------------------------


async def test_a_good_token_is_asked_about_once_a_minute(authenticator, reviewer, clock):
    for elapsed, asked in [(0, 1), (0, 1), (59_999, 1), (60_000, 2), (119_999, 2)]:
        clock.elapsed_ms = elapsed
        principal = await authenticator.authenticate("good", {})
        assert len(reviewer.asked) == asked
    assert (principal.kind, principal.namespace, principal.account) == (
        PrincipalKind.SERVICE_ACCOUNT,
        "shops",
        "shop-worker",
    )


async def test_a_good_token_is_not_remembered_beyond_its_expiry(authenticator, reviewer, clock):
    token = jwt("good", NOW_MS + 20_000)
    await authenticator.authenticate(token, {})
    clock.elapsed_ms = 19_999
    await authenticator.authenticate(token, {})
    assert len(reviewer.asked) == 1
    clock.elapsed_ms = 20_000
    del reviewer.users["good"]
    assert (await refused(authenticator.authenticate(token, {}))).status == 401


@pytest.mark.parametrize("token", ["good.e30.x", "good.!.x", "good.bm90IGpzb24.x", "good.eyJleHAiOiJ4In0.x", "good."])
async def test_a_token_without_a_readable_expiry_is_remembered_a_minute(authenticator, reviewer, clock, token):
    await authenticator.authenticate(token, {})
    clock.elapsed_ms = 59_999
    await authenticator.authenticate(token, {})
    assert len(reviewer.asked) == 1


async def test_a_refused_token_is_asked_about_again_after_five_seconds(authenticator, reviewer, clock):
    assert (await refused(authenticator.authenticate("late", {}))).status == 401
    reviewer.users["late"] = "system:serviceaccount:shops:shop-worker"
    clock.elapsed_ms = 4_999
    assert (await refused(authenticator.authenticate("late", {}))).status == 401
    assert len(reviewer.asked) == 1
    clock.elapsed_ms = 5_000
    assert (await authenticator.authenticate("late", {})).account == "shop-worker"


async def test_an_api_server_that_cannot_be_asked_refuses_nobody_for_good(authenticator, reviewer):
    reviewer.down = True
    problem = await refused(authenticator.authenticate("good", {}))
    assert (problem.status, problem.headers["Retry-After"]) == (503, "1")
    reviewer.down = False
    assert (await authenticator.authenticate("good", {})).account == "shop-worker"


@pytest.mark.parametrize("audiences", [(), ("https://kubernetes.default.svc",)])
async def test_a_token_of_another_audience_is_refused(authenticator, reviewer, audiences):
    reviewer.audiences = audiences
    problem = await refused(authenticator.authenticate("good", {}))
    assert problem.status == 401 and "not for audience `tickwheel`" in problem.detail


async def test_the_absence_of_a_token_is_not_asked_about(authenticator, reviewer):
    assert (await refused(authenticator.authenticate("", {}))).status == 401
    assert reviewer.asked == []


async def test_many_requests_with_one_new_token_ask_about_it_few_times(authenticator, reviewer):
    await asyncio.gather(*(authenticator.authenticate("good", {}) for _ in range(500)))
    assert len(reviewer.asked) <= 16


async def test_a_flood_of_bad_tokens_does_not_push_good_ones_out(reviewer, owners, clock):
    authenticator = TokenReviewAuthenticator(reviewer, lambda *_: None, owners, cache_size=10, clock=clock)
    await authenticator.authenticate("good", {})
    for number in range(50):
        await refused(authenticator.authenticate(f"bad-{number}", {}))
    await authenticator.authenticate("good", {})
    assert reviewer.asked.count("good") == 1
    assert len(authenticator._refused._entries) == 10


@pytest.mark.parametrize(
    "username", ["system:serviceaccount:", "system:serviceaccount:shops", "system:serviceaccount::x", "shops:x"]
)
async def test_a_username_that_only_looks_like_an_account_is_none(authenticator, reviewer, username):
    reviewer.users["odd"] = username
    assert (await authenticator.authenticate("odd", {})).kind is PrincipalKind.USER


async def test_two_tokens_of_one_user_with_other_groups_are_authorized_apart(reviewer, clock):
    authorizer = SubjectAccessAuthorizer(reviewer, clock=clock)
    for groups in (("a",), ("b",)):
        principal = Principal(username="alice", kind=PrincipalKind.USER, groups=groups)
        await authorizer.check_submit(principal, "shops")
    assert len(reviewer.asked) == 2


# --- the Kubernetes client, against HTTP -----------------------------------------------------------------------------


@pytest.fixture
async def api_server():
    """An API server that knows the two reviews: the requests that it got, and what it answers."""
    got: list[dict] = []
    answers: dict[str, tuple[int, dict]] = {}

    async def review(request: web.BaseRequest) -> web.Response:
        body = await request.json()
        got.append(body)
        status, part = answers[body["kind"] if body.get("kind") else request.path.rsplit("/", 1)[1]]
        return web.json_response({**body, **part} if status < 400 else part, status=status)

    runner = web.ServerRunner(web.Server(review))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    configuration = kubernetes_client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    async with kubernetes_client.ApiClient(configuration) as api_client:
        yield KubernetesReviewer(api_client), got, answers
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


async def test_an_api_server_that_is_not_there_is_unavailable():
    configuration = kubernetes_client.Configuration(host="http://127.0.0.1:1")
    async with kubernetes_client.ApiClient(configuration) as api_client:
        with pytest.raises(ReviewUnavailable, match="could not be reached"):
            await KubernetesReviewer(api_client, timeout_s=2.0).review_token("the-token", "tickwheel")
