"""Whoever is not let in gets the problem of its reason over HTTP, is counted, and has one line in the log."""

from __future__ import annotations

import asyncio
import logging

import pytest
from tests.unit.gateway.scripted import PULL, TOKEN, WORKER, ScriptedBackend, serving
from tests.unit.gateway.test_submit import accept
from tests.unit.identity.table import POOLS, FakeOwners, FakeReviewer, ManualClock, jwt

from tickwheel_operator.gateway.refusals import problem
from tickwheel_operator.identity.permission import SubjectAccessAuthorizer
from tickwheel_operator.identity.pod_owners import PoolOwner
from tickwheel_operator.identity.refusal import Reason, Refused
from tickwheel_operator.identity.token_review import TokenReviewAuthenticator


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


@pytest.mark.parametrize(
    ("reason", "status", "headers"),
    [
        (Reason.NO_TOKEN, 401, {"WWW-Authenticate": 'Bearer realm="tickwheel"'}),
        (Reason.INVALID_TOKEN, 401, {"WWW-Authenticate": 'Bearer realm="tickwheel"'}),
        (Reason.WRONG_AUDIENCE, 401, {"WWW-Authenticate": 'Bearer realm="tickwheel"'}),
        (Reason.NO_SUCH_POOL, 404, {}),
        (Reason.CANNOT_BE_CHECKED, 503, {"Retry-After": "1"}),
        (Reason.TOO_MANY, 429, {"Retry-After": "5"}),
        (Reason.NOT_PERMITTED, 403, {}),
        (Reason.OTHER_NAMESPACE, 403, {}),
    ],
)
def test_a_reason_makes_one_answer(reason, status, headers):
    answer = problem(Refused(reason, "why"))
    assert (answer.status, answer.headers, answer.detail) == (status, headers, "why")
