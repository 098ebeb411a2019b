"""The operator's process on a real API server, with the ServiceAccount and the roles that ship: what it does for
workers and users, whom it refuses, and how one replica hands over to the next."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.integration.caller import Answer, Caller
from tests.integration.installation import (
    apply,
    create_namespace,
    custom_object,
    get,
    install_operator,
    may_submit,
    service_account,
)
from tests.integration.processes import PATIENT_LEASE, Crew
from tests.integration.soak.account import Book, executions_without_a_lease, order_faults, read_records
from tests.integration.soak.scenario import HANDLERS, all_segments, leader_of, until
from tests.integration.soak.tail import LedgerTail

from tickwheel_cluster import Access

NAMESPACE = "operator-shop"
SYSTEM = "operator-system"


@pytest.fixture(scope="module")
def shop(cluster: Access) -> Access:
    """A namespace with a pool for `shop-worker`, a task that fires each second and one that is only submitted."""
    install_operator(cluster, SYSTEM)
    create_namespace(cluster, NAMESPACE)
    create_namespace(cluster, "operator-elsewhere")
    apply(cluster, *_objects(NAMESPACE), service_account("operator-elsewhere", "shop-worker"))
    return cluster


@pytest.fixture(scope="module")
def crew(shop: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """A leader and a follower. `crew.operators` are in this order."""
    with Crew(shop, tmp_path_factory.mktemp("crew"), system=SYSTEM, namespace=NAMESPACE) as crew:
        leader = crew.operator("leader", **PATIENT_LEASE)
        until("the first to lead", lambda: get(shop, "LedgerSegment", SYSTEM)["items"])
        leader.wait_ready()
        crew.operator("follower", **PATIENT_LEASE).wait_ready()
        caller = _caller(shop, "shop-worker")
        for operator in crew.operators:
            until(f"{operator.name} to know the leader", lambda url=operator.url: _leaders(caller, url) == [leader.url])
        yield crew


@pytest.fixture
def leader(crew: Crew) -> str:
    return crew.operators[0].url


def _caller(
    cluster: Access, account: str, *, namespace: str = NAMESPACE, audience: str = "tickwheel", pool: str = "shop"
) -> Caller:
    token = cluster.service_account_token(namespace, account, audience=audience)
    return Caller(token, namespace=NAMESPACE, pool=pool, name=f"raw-{account}", handlers=("raw",))


# --- work ------------------------------------------------------------------------------------------------------------


def test_a_task_fires_and_a_worker_with_its_accounts_token_does_the_work(
    shop: Access, crew: Crew, tmp_path: Path
) -> None:
    records = {"TICKWHEEL_TEST_RECORDS": str(tmp_path)}
    worker = crew.worker("w-0", pool="shop", account="shop-worker", handlers=HANDLERS, environment=records)
    uid = get(shop, "ScheduledTask", NAMESPACE, "each-second")["metadata"]["uid"]

    def done() -> list[Any]:
        return [r for r in read_records(tmp_path) if r.what == "end" and r.run.startswith(uid)]

    until("three runs", lambda: len(done()) >= 3)
    assert worker.terminate() == 0
    for record in done():
        assert record.run == f"{uid}.{record.scheduled_ms}"
        assert record.attempt == 1
    assert len({record.run for record in done()}) == len(done())


def test_both_replicas_are_ready_and_only_one_leads(shop: Access, crew: Crew) -> None:
    caller = _caller(shop, "shop-worker")
    for operator in crew.operators:
        with urllib.request.urlopen(f"{operator.url}/readyz", timeout=20) as answer:
            assert answer.status == 200
        replicas = caller.topology(operator.url).body["replicas"]
        assert [(r["url"], r["partitions"]) for r in replicas] == [(crew.operators[0].url, [0])]


def test_a_follower_sends_workers_to_the_leader(shop: Access, crew: Crew) -> None:
    answer = _caller(shop, "shop-worker").pull(crew.operators[1].url)
    assert (answer.status, answer.problem) == (421, "not-leader")
    assert answer.body["leader"] == crew.operators[0].url


# --- refusals --------------------------------------------------------------------------------------------------------


def test_the_account_that_the_pool_admits_may_pull_and_report(shop: Access, leader: str) -> None:
    caller = _caller(shop, "shop-worker")
    answer = caller.pull(leader)
    assert (answer.status, answer.body["epoch"]) == (200, 1)
    assert caller.report(leader, succeeded=[]).status == 200


def test_another_account_of_the_namespace_is_refused_with_the_accounts_that_are_admitted(
    shop: Access, leader: str
) -> None:
    caller = _caller(shop, "intruder")
    for answer in (caller.pull(leader), caller.report(leader, succeeded=[1])):
        _is_refused(answer, 403, "forbidden", "'intruder' may not speak for WorkerPool 'shop'", "admits shop-worker")


def test_an_account_of_that_name_in_another_namespace_is_refused(shop: Access, leader: str) -> None:
    answer = _caller(shop, "shop-worker", namespace="operator-elsewhere").pull(leader)
    _is_refused(answer, 403, "forbidden", "only speak for pools of its own namespace 'operator-elsewhere'")


def test_a_pool_without_a_list_admits_every_account_of_its_namespace_and_no_other(shop: Access, leader: str) -> None:
    assert _caller(shop, "intruder", pool="open").pull(leader).status == 200
    answer = _caller(shop, "shop-worker", namespace="operator-elsewhere", pool="open").pull(leader)
    _is_refused(answer, 403, "forbidden")


def test_a_pool_that_does_not_exist_is_named(shop: Access, leader: str) -> None:
    _is_refused(_caller(shop, "shop-worker", pool="shoop").pull(leader), 404, "no-such-pool", "'shoop'")


def test_a_token_for_the_api_server_is_refused(shop: Access, leader: str) -> None:
    answer = _caller(shop, "shop-worker", audience="https://kubernetes.default.svc").pull(leader)
    _is_refused(answer, 401, "unauthenticated", "audience `tickwheel`")


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c"])
def test_without_a_good_token_nothing_is_answered(shop: Access, leader: str, token: str) -> None:
    caller = Caller(token, namespace=NAMESPACE, pool="shop")
    for answer in (
        caller.pull(leader),
        caller.report(leader, succeeded=[1]),
        caller.submit(leader, NAMESPACE, "by-hand"),
        caller.topology(leader),
    ):
        _is_refused(answer, 401, "unauthenticated")


# --- submissions -----------------------------------------------------------------------------------------------------


def test_who_may_create_taskruns_may_submit_and_a_key_is_one_run(shop: Access, leader: str) -> None:
    caller = _caller(shop, "submitter")
    first, again, other = (caller.submit(leader, NAMESPACE, "by-hand", key=key) for key in ("a", "a", "b"))
    assert (first.status, again.status, other.status) == (200, 200, 200)
    assert [answer.body["runs"][0]["created"] for answer in (first, again, other)] == [True, False, True]
    assert first.body["runs"][0]["run"] == again.body["runs"][0]["run"] != other.body["runs"][0]["run"]


def test_who_may_not_create_taskruns_may_not_submit(shop: Access, leader: str) -> None:
    answer = _caller(shop, "shop-worker").submit(leader, NAMESPACE, "by-hand")
    _is_refused(answer, 403, "forbidden", "may not create taskruns.tickwheel.io in namespace", "verbs: [create]")


def test_a_permission_in_one_namespace_is_none_in_another(shop: Access, leader: str) -> None:
    _is_refused(_caller(shop, "submitter").submit(leader, "operator-elsewhere", "by-hand"), 403, "forbidden")


def test_a_task_that_does_not_exist_cannot_be_submitted(shop: Access, leader: str) -> None:
    answer = _caller(shop, "submitter").submit(leader, NAMESPACE, "by-foot")
    _is_refused(answer, 404, "no-such-task", f"{NAMESPACE}/by-foot")


# --- replicas --------------------------------------------------------------------------------------------------------


def test_a_worker_that_has_seen_a_newer_leader_is_not_answered(shop: Access, leader: str) -> None:
    caller = _caller(shop, "shop-worker")
    _is_refused(caller.pull(leader, epoch=7), 409, "epoch-passed", "seen epoch 7, this replica leads epoch 1")
    _is_refused(caller.report(leader, succeeded=[1], epoch=7), 409, "epoch-passed")


def test_a_leader_that_is_told_to_stop_hands_over_at_once_and_no_instant_is_lost(
    cluster: Access, tmp_path: Path
) -> None:
    namespace, system = "hand-over", "hand-over-system"
    install_operator(cluster, system)
    create_namespace(cluster, namespace)
    apply(cluster, *_objects(namespace))
    records = tmp_path / "records"
    records.mkdir()
    token = cluster.service_account_token(namespace, "shop-worker", audience="tickwheel")
    raw = Caller(token, namespace=namespace, pool="open", handlers=("nothing-to-do",))
    with (
        LedgerTail(cluster, system) as tail,
        Crew(cluster, tmp_path, system=system, namespace=namespace) as crew,
        ThreadPoolExecutor() as threads,
    ):
        for number in range(2):
            # A Lease that outlives the wait below: only its release explains that the next one leads.
            crew.operator(f"replica-{number}", **PATIENT_LEASE).wait_ready()
        crew.worker(
            "w-0",
            pool="shop",
            account="shop-worker",
            handlers=HANDLERS,
            environment={"TICKWHEEL_TEST_RECORDS": str(records)},
        )
        for epoch in (1, 2, 3):
            until(f"work in epoch {epoch}", partial(_works, tail, epoch))
            ruling, leader = leader_of(crew, tail)
            assert ruling == epoch
            waiting = threads.submit(raw.pull, leader.url, wait_ms=30_000)
            assert leader.terminate() == 0
            assert waiting.result().tokens == []
            if epoch < 3:
                # Long before the Lease would have ended, though nobody is asked how long it took.
                until(f"epoch {epoch + 1}", partial(_has_begun, tail, epoch + 1))
                crew.operator(f"replica-{epoch + 1}", **PATIENT_LEASE).wait_ready()
        assert crew.operators[-1].terminate() == 0
        segments = all_segments(cluster, tail, system)
        assert order_faults(segments) == []
        book = Book(segments)
        instants = next(task.runs for task in book.tasks.values() if task.name == "each-second")
        assert set(instants.values()) == {1}
        assert [b - a for a, b in pairwise(sorted(instants))] == [1_000] * (len(instants) - 1)
        assert executions_without_a_lease(book, read_records(records)) == set()
        assert sum(book.failed_attempts.values()) == 0, "a hand-over costs no attempt"


def _leaders(caller: Caller, url: str) -> list[str]:
    """Who leads, as the replica at this address says."""
    return [replica["url"] for replica in caller.topology(url).body.get("replicas", ())]


def _has_begun(tail: LedgerTail, epoch: int) -> bool:
    return tail.segments()[-1].epoch >= epoch


def _works(tail: LedgerTail, epoch: int) -> bool:
    """Whether runs were fired in the epoch, and one succeeded after the first of these."""
    book = Book(tail.segments())
    fired = [at_ms for at_ms, in_epoch in book.fires if in_epoch == epoch]
    return len(fired) >= 2 and any(r.state == "succeeded" and r.scheduled_ms > fired[0] for r in book.runs.values())


# --- objects ---------------------------------------------------------------------------------------------------------


def _is_refused(answer: Answer, status: int, problem: str, *texts: str) -> None:
    assert (answer.status, answer.problem) == (status, problem), answer
    assert answer.body["status"] == status
    for text in texts:
        assert text in answer.body["detail"]


def _objects(namespace: str) -> list[dict[str, Any]]:
    return [
        *(service_account(namespace, name) for name in ("shop-worker", "intruder", "submitter")),
        *may_submit(namespace, "submitter"),
        custom_object("WorkerPool", namespace, "shop", {
            # A machine that stands still for some seconds loses no worker.
            "slots": 8, "silence": "120s", "access": {"serviceAccounts": ["shop-worker"]},
        }),
        custom_object("WorkerPool", namespace, "open", {"slots": 8}),
        custom_object("ScheduledTask", namespace, "each-second", {
            "trigger": {"fixedRate": "1s"}, "pool": "shop", "handler": "quick", "misfire": {"policy": "FireAll"},
        }),
        custom_object("ScheduledTask", namespace, "by-hand", {"pool": "open", "handler": "quick"}),
    ]  # fmt: skip
