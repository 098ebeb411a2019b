"""Strangers that flood the gateway, with an API server that is slow with reviews: Lease, ledger and workers go on.

The floods are processes of their own, bounded in callers and seconds, and come from other addresses of loopback than
the worker and the good caller.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.caller import Caller
from tests.integration.flood_client import FloodPlan
from tests.integration.hasty_operator import SITE
from tests.integration.installation import (
    OPERATOR_ACCOUNT,
    apply,
    create_namespace,
    custom_object,
    install_operator,
    may_submit,
    service_account,
)
from tests.integration.processes import OperatorProcess, Program, WorkerProcess, customized
from tests.integration.slow_reviews import Manner, SlowReviews
from tests.integration.soak.scenario import HANDLERS, until

from tickwheel_cluster import Access

SYSTEM, NAMESPACE = "flood-system", "flood-shop"
_LEASE = {
    "TICKWHEEL_LEASE_DURATION_MS": "6000", "TICKWHEEL_RENEW_DEADLINE_MS": "4000", "TICKWHEEL_RETRY_PERIOD_MS": "800",
}  # fmt: skip
_FLOODERS = ("127.0.0.66", "127.0.0.67")
_SECONDS = 60.0
"""At most: a flood is ended when its test has seen enough."""


class Flood(Program):
    def __init__(self, operator: OperatorProcess, folder: Path, **plan: Any) -> None:
        self.plan = FloodPlan(host="127.0.0.1", port=operator.port, **plan)
        name = f"flood-{self.plan.kind}-{self.plan.source}"
        command = [sys.executable, "-m", "tests.integration.flood_client", msgspec.json.encode(self.plan).decode()]
        super().__init__(name, command, {"PYTHONPATH": os.pathsep.join(sys.path)}, folder / f"{name}.log")

    def answers(self) -> dict[str, int]:
        """End it; how often it got which status."""
        self.terminate()
        counts: dict[str, int] = json.loads(self.log.read_text().splitlines()[-1])
        return counts


@pytest.fixture(scope="module")
def reviews(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlowReviews]:
    with SlowReviews(cluster, tmp_path_factory.mktemp("proxy"), Manner(delay_s=0.5)) as proxy:
        proxy.wait_ready()
        yield proxy


@pytest.fixture(scope="module")
def operator(
    cluster: Access, reviews: SlowReviews, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    """A leader that reaches the API server through the proxy, with one worker and a task that fires each second."""
    install_operator(cluster, SYSTEM)
    create_namespace(cluster, NAMESPACE)
    for name in ("worker", "submitter", "intruder"):
        apply(cluster, service_account(NAMESPACE, name))
    apply(
        cluster,
        *may_submit(NAMESPACE, "submitter"),
        _object("WorkerPool", "shop", {"access": {"serviceAccounts": ["worker"]}}),
        _object("ScheduledTask", "tick", {"pool": "shop", "handler": "quick", "trigger": {"fixedRate": "1s"}}),
        _object("ScheduledTask", "by-hand", {"pool": "shop", "handler": "quick"}),
    )
    folder = tmp_path_factory.mktemp("operator")
    account = cluster.service_account_kubeconfig(SYSTEM, OPERATOR_ACCOUNT)
    with OperatorProcess(
        cluster, folder, "operator", namespace=SYSTEM, TICKWHEEL_WATCH_NAMESPACES=NAMESPACE, **_LEASE,
        TICKWHEEL_KUBECONFIG=str(reviews.kubeconfig(account)), **customized(folder, SITE),
    ) as operator:  # fmt: skip
        operator.wait_ready()
        with WorkerProcess(
            operator.url, folder, "worker", namespace=NAMESPACE, pool="shop", handlers=HANDLERS,
            token=cluster.service_account_token(NAMESPACE, "worker", audience="tickwheel"),
            TICKWHEEL_TEST_RECORDS=str(folder),
        ) as worker:  # fmt: skip
            until("a run to succeed", lambda: _succeeded(operator) > 0)
            yield operator
            assert worker.alive


def test_workers_go_on_while_tokens_cannot_be_reviewed(
    cluster: Access, operator: OperatorProcess, reviews: SlowReviews
) -> None:
    """The worker's token was accepted; for how long that holds is a matter of tests/unit/gateway/test_auth.py."""
    reviews.treat(Manner(status=500))
    try:
        stranger = Caller(
            cluster.service_account_token(NAMESPACE, "worker", audience="tickwheel", ttl_seconds=900),
            namespace=NAMESPACE, pool="shop", name="other", handlers=("none",),
        )  # fmt: skip
        assert stranger.pull(operator.url).status == 503
        # No answer of the API server is remembered that long.
        until("the worker to be asked about in vain", lambda: "go on for up to 600 s" in operator.log.read_text())
        before = _succeeded(operator)
        until("runs to go on", lambda: _succeeded(operator) >= before + 6)
    finally:
        reviews.treat(Manner(delay_s=0.5))


@pytest.mark.parametrize("kind", ["tokens", "submissions", "headers"])
def test_a_flood_ends_no_term_and_stops_no_run_and_a_good_caller_gets_its_answer(
    cluster: Access, operator: OperatorProcess, tmp_path: Path, kind: str
) -> None:
    token = cluster.service_account_token(NAMESPACE, "intruder", audience="tickwheel")
    epoch = operator.metrics()['tickwheel_epoch{partition="0"}']
    callers = {"tokens": 600, "submissions": 750, "headers": 750}[kind]
    floods = [
        Flood(operator, tmp_path, kind=kind, callers=callers, seconds=_SECONDS, source=source, token=token).start()
        for source in _FLOODERS
    ]
    good = [
        Caller(cluster.service_account_token(NAMESPACE, "submitter", audience="tickwheel", ttl_seconds=600 + number))
        for number in range(3)
    ]
    try:
        until("the flood to be felt", lambda: _felt(operator))
        before = _succeeded(operator)
        # Each has a token that nobody has seen, so that it costs a TokenReview, and the first a SubjectAccessReview.
        assert [caller.submit(operator.url, NAMESPACE, "by-hand", timeout_s=20).status for caller in good] == [200] * 3
        until("runs to go on", lambda: _succeeded(operator) >= before + 6)
    finally:
        answers = [flood.answers() for flood in floods]
    metrics = operator.metrics()
    assert metrics['tickwheel_leader{partition="0"}'] == 1, operator.log_tail()
    assert metrics['tickwheel_epoch{partition="0"}'] == epoch, operator.log_tail()
    for counts in answers:
        assert set(counts) <= {"0", "401", "403", "429", "503"}, counts


def _felt(operator: OperatorProcess) -> bool:
    refused = {name: value for name, value in operator.metrics().items() if "gateway_refused_total" in name}
    return sum(refused.values()) > 100


def _succeeded(operator: OperatorProcess) -> float:
    return sum(value for name, value in operator.metrics().items() if _is_success(name))


def _is_success(name: str) -> bool:
    return name.startswith("tickwheel_runs_total{") and 'state="Succeeded"' in name


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return custom_object(kind, NAMESPACE, name, spec)
