"""Who is let in, who may speak for which pool, who may submit, and what the caches hold."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from kubernetes.aio import client as kubernetes_client
from tests.unit.gateway.scripted import NOW_MS, PULL, TOKEN, WORKER, ScriptedBackend, serving
from tests.unit.gateway.test_submit import accept

from tickwheel_operator.gateway.auth import PoolAccess, Principal, PrincipalKind, StaticTokenAuthenticator
from tickwheel_operator.gateway.permission import SubjectAccessAuthorizer
from tickwheel_operator.gateway.problems import GatewayProblem
from tickwheel_operator.gateway.reviewer import KubernetesReviewer, Review, ReviewUnavailable
from tickwheel_operator.gateway.token_review import TokenReviewAuthenticator
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
        name = token.split(".")[0]
        self.asked.append(name)
        await asyncio.sleep(0)
        if self.down:
            raise ReviewUnavailable("the API server could not be reached to create a TokenReview: OSError")
        username = self.users.get(name)
        if username is None:
            return Review(authenticated=False)
        pod = self.pods.get(name)
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


SOURCE = "10.0.0.7"


def jwt(user: str, expires_ms: int = NOW_MS + 3_600_000, **claims) -> str:
    said = {"exp": expires_ms / 1000, "aud": ["tickwheel"], **claims}
    return f"{user}.{base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b'=').decode()}.signature"


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
        pull, problem, _ = await caller.post("/v1/pull", {**PULL, "worker": worker}, token=jwt(token))
        report, _, _ = await caller.post("/v1/report", {"worker": worker}, token=jwt(token))
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
            pull, problem, _ = await caller.post("/v1/pull", {**PULL, "worker": worker}, token=jwt(token))
            report, _, _ = await caller.post("/v1/report", {"worker": worker}, token=jwt(token))
            assert (pull, report) == ((403, 403) if words else (200, 200))
        assert words in problem.get("detail", "")
        assert sum(gateway.refusals.counts.values()) == (4 if words else 0)


async def test_a_pod_of_an_earlier_pool_of_that_name_is_refused(authenticator, owners):
    owners.owners["uid-of-own-1"] = PoolOwner("own", "uid-before-it-was-made-anew")
    worker = {**WORKER, "pool": "own", "name": "own-1"}
    async with serving(ScriptedBackend(), authenticator=authenticator) as (caller, _):
        status, problem, _ = await caller.post("/v1/pull", {**PULL, "worker": worker}, token=jwt("in-own"))
    assert status == 403 and "an earlier WorkerPool 'own'" in problem["detail"]


async def test_an_owner_that_cannot_be_looked_up_lets_nobody_in(authenticator, owners):
    worker = {**WORKER, "pool": "own", "name": "own-1"}
    owners.down = True
    async with serving(ScriptedBackend(), authenticator=authenticator) as (caller, gateway):
        status, problem, headers = await caller.post("/v1/pull", {**PULL, "worker": worker}, token=jwt("in-own"))
        assert (status, headers["Retry-After"]) == (503, "1") and "shops/own-1" in problem["detail"]
        assert gateway.refusals.counts["CannotBeChecked"] == 1
        owners.down = False
        assert (await caller.post("/v1/pull", {**PULL, "worker": worker}, token=jwt("in-own")))[0] == 200


async def test_a_user_token_that_claims_a_pod_has_none(authenticator, reviewer):
    """Only of a ServiceAccount does the API server say it: of another user, anybody may have said so."""
    reviewer.users["human"], reviewer.pods["human"] = "alice", "own-1"
    principal = await authenticator.authenticate(jwt("human"), SOURCE)
    assert (principal.pod, principal.pod_uid) == ("", "")


# --- the log ---------------------------------------------------------------------------------------------------------


async def test_each_refusal_is_one_line_that_names_the_reason_and_a_repeated_one_is_not_repeated(authenticator, caplog):
    worker = {**WORKER, "pool": "own", "name": "open-1"}
    async with serving(ScriptedBackend(), authenticator=authenticator) as (caller, gateway):
        for _ in range(5):
            await caller.post("/v1/pull", {**PULL, "worker": worker}, token=jwt("in-open"))
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
    detail = (await refused(authenticator.authenticate(f"x.{payload}.y", SOURCE))).detail
    assert "expired 90 s ago" in detail and "as it says itself" in detail
    assert "pod shops/a?" in detail and "x" * 63 not in detail
    claims = {"aud": "https://kubernetes.default.svc", "exp": NOW_MS / 1000 + 90}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
    problem = await refused(authenticator.authenticate(f"x.{payload}.y", SOURCE))
    assert "(it says it is for https://kubernetes.default.svc)" in problem.detail


@pytest.mark.parametrize("claims", ['{"exp":1e308}', '{"exp":-1}', '{"aud":[1]}', "[" * 5_000, '{"kubernetes.io":3}'])
async def test_a_token_with_odd_claims_is_refused_like_any_other(authenticator, claims):
    payload = base64.urlsafe_b64encode(claims.encode()).decode()
    assert (await refused(authenticator.authenticate(f"x.{payload}.y", SOURCE))).status == 401


async def test_submitting_asks_for_permission_in_the_tasks_namespace(authenticator, reviewer, clock):
    authorizer = SubjectAccessAuthorizer(reviewer, clock=clock)
    backend = ScriptedBackend(accept)
    async with serving(backend, authenticator=authenticator, authorizer=authorizer) as (caller, _):
        first, _, _ = await caller.post("/v1/tasks/shops/t/runs", token=jwt("human"))
        reviewer.allowed = False
        cached, _, _ = await caller.post("/v1/tasks/shops/t/runs", token=jwt("human"))
        other, problem, _ = await caller.post("/v1/tasks/other/t/runs", token=jwt("human"))
        clock.elapsed_ms += 10_000
        later, _, _ = await caller.post("/v1/tasks/shops/t/runs", token=jwt("human"))
    assert (first, cached, other, later) == (200, 200, 403, 403)
    assert reviewer.asked == ["human", "alice in shops", "alice in other", "alice in shops"]
    assert "alice may not create taskruns.tickwheel.io in namespace 'other': no rule" in problem["detail"]
    assert len(backend.commands) == 2


async def test_no_token_reaches_a_log_or_an_answer(authenticator, reviewer, caplog):
    caplog.set_level(logging.DEBUG)
    secret = "s3cr3t-token-of-a-worker"
    odd = jwt(secret).replace("signature", "s3cr3t-token")
    async with serving(ScriptedBackend(), authenticator=authenticator) as (caller, _):
        _, malformed, _ = await caller.post("/v1/pull", PULL, token=secret)
        _, refusal, _ = await caller.post("/v1/pull", PULL, token=odd)
        reviewer.down = True
        _, unavailable, _ = await caller.post("/v1/pull", PULL, token=jwt(secret + "2"))
    assert reviewer.asked == [secret, secret + "2"]
    assert "s3cr3t" not in caplog.text + str(malformed) + str(refusal) + str(unavailable)
    assert not any(secret in repr(part) for part in vars(authenticator).values())


# --- the caches ------------------------------------------------------------------------------------------------------


async def test_a_good_token_is_asked_about_once_a_minute(authenticator, reviewer, clock):
    for elapsed, asked in [(0, 1), (0, 1), (59_999, 1), (60_000, 2), (119_999, 2)]:
        clock.elapsed_ms = elapsed
        principal = await authenticator.authenticate(jwt("good"), SOURCE)
        assert len(reviewer.asked) == asked
    assert (principal.kind, principal.namespace, principal.account) == (
        PrincipalKind.SERVICE_ACCOUNT,
        "shops",
        "shop-worker",
    )


async def test_a_good_token_is_not_remembered_beyond_its_expiry(authenticator, reviewer, clock):
    token = jwt("good", NOW_MS + 20_000)
    await authenticator.authenticate(token, SOURCE)
    clock.elapsed_ms = 19_999
    await authenticator.authenticate(token, SOURCE)
    assert len(reviewer.asked) == 1
    clock.elapsed_ms = 20_000
    del reviewer.users["good"]
    assert (await refused(authenticator.authenticate(token, SOURCE))).status == 401


async def test_a_token_without_an_expiry_is_remembered_a_minute(authenticator, reviewer, clock):
    token = jwt("good", exp=None)
    await authenticator.authenticate(token, SOURCE)
    clock.elapsed_ms = 59_999
    await authenticator.authenticate(token, SOURCE)
    assert len(reviewer.asked) == 1


async def test_a_refused_token_is_asked_about_again_after_five_seconds(authenticator, reviewer, clock):
    assert (await refused(authenticator.authenticate(jwt("late"), SOURCE))).status == 401
    reviewer.users["late"] = "system:serviceaccount:shops:shop-worker"
    clock.elapsed_ms = 4_999
    assert (await refused(authenticator.authenticate(jwt("late"), SOURCE))).status == 401
    assert len(reviewer.asked) == 1
    clock.elapsed_ms = 5_000
    assert (await authenticator.authenticate(jwt("late"), SOURCE)).account == "shop-worker"


async def test_an_api_server_that_cannot_be_asked_refuses_nobody_for_good(authenticator, reviewer):
    reviewer.down = True
    problem = await refused(authenticator.authenticate(jwt("good"), SOURCE))
    assert (problem.status, problem.headers["Retry-After"]) == (503, "1")
    reviewer.down = False
    assert (await authenticator.authenticate(jwt("good"), SOURCE)).account == "shop-worker"


@pytest.mark.parametrize("audiences", [(), ("https://kubernetes.default.svc",)])
async def test_a_token_of_another_audience_is_refused(authenticator, reviewer, audiences):
    reviewer.audiences = audiences
    problem = await refused(authenticator.authenticate(jwt("good"), SOURCE))
    assert problem.status == 401 and "not for audience `tickwheel`" in problem.detail


async def test_the_absence_of_a_token_is_not_asked_about(authenticator, reviewer):
    assert (await refused(authenticator.authenticate("", SOURCE))).status == 401
    assert reviewer.asked == []


async def test_many_requests_with_one_new_token_ask_about_it_few_times(authenticator, reviewer):
    await asyncio.gather(*(authenticator.authenticate(jwt("good"), SOURCE) for _ in range(500)))
    assert len(reviewer.asked) <= 16


async def test_a_flood_of_bad_tokens_does_not_push_good_ones_out(reviewer, owners, clock):
    authenticator = TokenReviewAuthenticator(reviewer, lambda *_: None, owners, cache_size=10, clock=clock)
    await authenticator.authenticate(jwt("good"), SOURCE)
    for number in range(50):
        await refused(authenticator.authenticate(jwt(f"bad-{number}"), SOURCE))
    await authenticator.authenticate(jwt("good"), SOURCE)
    assert reviewer.asked.count("good") == 1
    assert len(authenticator._refused._entries) == 10


@pytest.mark.parametrize(
    "username", ["system:serviceaccount:", "system:serviceaccount:shops", "system:serviceaccount::x", "shops:x"]
)
async def test_a_username_that_only_looks_like_an_account_is_none(authenticator, reviewer, username):
    reviewer.users["odd"] = username
    assert (await authenticator.authenticate(jwt("odd"), SOURCE)).kind is PrincipalKind.USER


async def test_two_tokens_of_one_user_with_other_groups_are_authorized_apart(reviewer, clock):
    authorizer = SubjectAccessAuthorizer(reviewer, clock=clock)
    for groups in (("a",), ("b",)):
        principal = Principal(username="alice", kind=PrincipalKind.USER, groups=groups)
        await authorizer.check_submit(principal, "shops")
    assert len(reviewer.asked) == 2


# --- what a stranger costs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("opaque", "is no ServiceAccount token"),
        ("a.b", "is no ServiceAccount token"),
        ("a.!.c", "is no ServiceAccount token"),
        ("good..x", "is no ServiceAccount token"),
        ("good.bm90IGpzb24.x", "is no ServiceAccount token"),
        (jwt("good", aud="vault"), "not for audience `tickwheel` (it says it is for vault)"),
        (jwt("good", aud=[]), "does not accept"),
        (jwt("good", NOW_MS - 60_000), "expired 60 s ago"),
    ],
)
async def test_what_cannot_be_a_token_of_ours_is_refused_without_a_review(authenticator, reviewer, token, words):
    problem = await refused(authenticator.authenticate(token, SOURCE))
    assert problem.status == 401 and words in problem.detail
    assert reviewer.asked == []


async def test_a_token_that_has_just_expired_by_the_operators_clock_is_asked_about(authenticator, reviewer):
    """That clock may be ahead of the API server's."""
    assert (await authenticator.authenticate(jwt("good", NOW_MS - 59_000), SOURCE)).account == "shop-worker"


class SlowReviewer(FakeReviewer):
    """Answers when its test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.at_once = self.most = 0

    async def review_token(self, token: str, audience: str) -> Review:
        async with self._counted():
            return await super().review_token(token, audience)

    async def may_create_runs(self, principal: Principal, namespace: str) -> tuple[bool, str]:
        async with self._counted():
            return await super().may_create_runs(principal, namespace)

    @asynccontextmanager
    async def _counted(self):
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self.gate.wait()
            yield
        finally:
            self.at_once -= 1


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_flood_of_forged_tokens_from_one_address_delays_no_other_and_is_cut_off(owners, clock):
    reviewer = SlowReviewer()
    authenticator = TokenReviewAuthenticator(reviewer, lambda *_: None, owners, clock=clock)
    flood = [asyncio.create_task(refused(authenticator.authenticate(jwt(f"f{n}"), "6.6.6.6"))) for n in range(500)]
    await settled()
    good = asyncio.create_task(authenticator.authenticate(jwt("good"), SOURCE))
    await settled()
    assert reviewer.most == 9, "eight of the flood, and the good one at once"
    reviewer.gate.set()
    assert (await good).account == "shop-worker"
    problems = await asyncio.gather(*flood)
    assert {problem.status for problem in problems} == {401, 429}
    assert sum(problem.status == 401 for problem in problems) <= 100 + 8
    problem = await refused(authenticator.authenticate(jwt("once more"), "6.6.6.6"))
    assert (problem.status, problem.name, problem.headers["Retry-After"]) == (429, "too-many-requests", "5")
    asked = len(reviewer.asked)
    clock.elapsed_ms += 60_000
    await refused(authenticator.authenticate(jwt("later"), "6.6.6.6"))
    assert len(reviewer.asked) == asked + 1


async def test_a_caller_that_is_told_that_it_asks_too_often_loses_its_connection(authenticator):
    async with serving(ScriptedBackend(), authenticator=authenticator) as (caller, gateway):
        for number in range(100):
            assert (await caller.post("/v1/pull", PULL, token=jwt(f"forged-{number}")))[0] == 401
        connections = gateway._listener._connections
        assert len(connections) == 1, "it has had one connection so far"
        status, problem, headers = await caller.post("/v1/pull", PULL, token=jwt("one-more"))
        assert (status, problem["status"], headers["Connection"]) == (429, 429, "close")
        async with asyncio.timeout(30):
            while len(connections):
                await asyncio.sleep(0.01)
        assert (await caller.post("/v1/pull", PULL, token=jwt("good")))[0] == 429, "of the same address, not known yet"


async def test_no_more_than_sixteen_reviews_of_each_kind_are_asked_at_once_by_however_many(owners, clock):
    for kind in ("tokens", "permissions"):
        reviewer = SlowReviewer()
        authenticator = TokenReviewAuthenticator(reviewer, lambda *_: None, owners, clock=clock)
        authorizer = SubjectAccessAuthorizer(reviewer, clock=clock)
        callers = []
        for n in range(300):
            stranger = Principal(username=f"u{n % 30}", kind=PrincipalKind.SERVICE_ACCOUNT, namespace=f"n{n % 30}")
            asked = (
                authenticator.authenticate(jwt(f"x{n}"), f"10.0.0.{n % 30}")
                if kind == "tokens"
                else authorizer.check_submit(stranger, f"made-up-{n}")
            )
            callers.append(asyncio.create_task(asked))
        await settled()
        assert reviewer.at_once == 16
        reviewer.gate.set()
        await asyncio.gather(*callers, return_exceptions=True)
        assert reviewer.most == 16 and len(reviewer.asked) == 300


@pytest.mark.parametrize("home", ["elsewhere", "shops"], ids=["of another namespace", "of the same namespace"])
async def test_a_caller_that_asks_about_namespaces_it_makes_up_delays_no_other_and_is_cut_off(clock, home):
    reviewer = SlowReviewer()
    authorizer = SubjectAccessAuthorizer(reviewer, clock=clock)
    reviewer.allowed = False
    intruder = Principal(username="intruder", kind=PrincipalKind.SERVICE_ACCOUNT, namespace=home)
    submitter = Principal(username="submitter", kind=PrincipalKind.SERVICE_ACCOUNT, namespace="shops")
    flood = [asyncio.create_task(refused(authorizer.check_submit(intruder, f"made-up-{n}"))) for n in range(500)]
    await settled()
    good = asyncio.create_task(refused(authorizer.check_submit(submitter, "shops")))
    await settled()
    assert reviewer.at_once == (9 if home == "elsewhere" else 8)
    reviewer.gate.set()
    assert (await good).status == 403, "which is its answer: nobody is permitted anything here"
    asked = reviewer.asked.index("submitter in shops")
    assert asked <= 16, "it was next, though hundreds waited"
    problems = await asyncio.gather(*flood)
    assert {problem.status for problem in problems} == {403, 429}
    assert sum(problem.status == 403 for problem in problems) <= 100 + 8
    problem = await refused(authorizer.check_submit(intruder, "one-more"))
    assert (problem.status, problem.headers["Retry-After"]) == (429, "5")
    assert authorizer._accounts == {}


# --- while the API server cannot be asked ----------------------------------------------------------------------------


async def test_callers_that_were_accepted_go_on_through_an_outage_of_reviews_for_ten_minutes(
    authenticator, reviewer, clock, caplog
):
    token = jwt("good")
    await authenticator.authenticate(token, SOURCE)
    reviewer.down = True
    for elapsed in (60_000, 300_000, 599_999):
        clock.elapsed_ms = elapsed
        assert (await authenticator.authenticate(token, SOURCE)).account == "shop-worker"
    assert (await refused(authenticator.authenticate(jwt("human"), SOURCE))).status == 503, "nobody new"
    assert len([r for r in caplog.records if "go on for up to 600 s" in r.getMessage()]) == 3
    clock.elapsed_ms = 600_000
    assert (await refused(authenticator.authenticate(token, SOURCE))).status == 503


async def test_an_outage_is_not_asked_about_for_each_caller(authenticator, reviewer, clock):
    token = jwt("good")
    await authenticator.authenticate(token, SOURCE)
    reviewer.down = True
    clock.elapsed_ms = 60_000
    for _ in range(50):
        await authenticator.authenticate(token, SOURCE)
    assert len(reviewer.asked) == 2
    reviewer.down = False
    clock.elapsed_ms += 5_000
    await authenticator.authenticate(token, SOURCE)
    reviewer.down = True
    clock.elapsed_ms += 59_999
    await authenticator.authenticate(token, SOURCE)
    assert len(reviewer.asked) == 3, "it was accepted again, for a minute"


async def test_a_review_that_hangs_does_not_hold_up_who_was_accepted(owners, clock):
    reviewer = SlowReviewer()
    authenticator = TokenReviewAuthenticator(reviewer, lambda *_: None, owners, patience_s=0.01, clock=clock)
    reviewer.gate.set()
    await authenticator.authenticate(jwt("good"), SOURCE)
    reviewer.gate.clear()
    clock.elapsed_ms = 60_000
    assert (await authenticator.authenticate(jwt("good"), SOURCE)).account == "shop-worker"


async def test_a_token_that_is_refused_after_an_outage_is_out_at_once(authenticator, reviewer, clock):
    token = jwt("good")
    await authenticator.authenticate(token, SOURCE)
    del reviewer.users["good"]
    clock.elapsed_ms = 60_000
    assert (await refused(authenticator.authenticate(token, SOURCE))).status == 401
    reviewer.down = True
    clock.elapsed_ms += 5_000
    assert (await refused(authenticator.authenticate(token, SOURCE))).status == 503


async def test_no_outage_keeps_a_token_beyond_its_end(authenticator, reviewer, clock):
    token = jwt("good", NOW_MS + 90_000)
    await authenticator.authenticate(token, SOURCE)
    reviewer.down = True
    clock.elapsed_ms = 89_999
    await authenticator.authenticate(token, SOURCE)
    clock.elapsed_ms = 90_000
    await refused(authenticator.authenticate(token, SOURCE))


# --- the Kubernetes client, against HTTP -----------------------------------------------------------------------------


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
            await KubernetesReviewer(api_client, timeout_s=2.0).review_token("the-token", "tickwheel")
