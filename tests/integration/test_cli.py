"""The commands on a real API server with an operator's process: `next` agrees with it, and `backfill` is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.integration.installation import (
    apply,
    create_namespace,
    custom_object,
    get,
    install_operator,
    service_account,
)
from tests.integration.processes import Crew
from tests.integration.soak.account import read_records
from tests.integration.soak.scenario import HANDLERS, until

from tickwheel_cluster import Access
from tickwheel_operator.cli.main import main

NAMESPACE = "cli-shop"
SYSTEM = "cli-system"
ABANDONED = "cli-abandoned"
SPAN = ("--from", "2024-11-01T00:00:00Z", "--to", "2024-11-01T06:00:00Z")
TRIGGERS = {
    "by-cron": {
        "cron": "0 30 2 L * ?", "timeZone": "Europe/Berlin", "jitter": "10m",
        "calendars": [{"name": "closed", "rule": "Exclude"}],
    },
    "by-day": {
        "dailyInterval": {"every": "7h", "from": "22:15", "to": "21:00", "days": ["Sat"]},
        "timeZone": "Asia/Shanghai", "calendars": [{"name": "closed", "rule": "Include"}],
    },
    "by-rate": {"fixedRate": "9d", "window": {"notBefore": "2030-01-01T00:00:00Z"}},
    "by-hour": {"cron": "@hourly"},
}  # fmt: skip


@pytest.fixture(scope="module")
def shop(cluster: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    install_operator(cluster, SYSTEM)
    create_namespace(cluster, NAMESPACE)
    account = service_account(NAMESPACE, "worker")
    apply(cluster, account, _object("WorkerPool", "shop", {"slots": 8}))
    closed = {"timeZone": "Europe/Berlin", "dates": ["2026-11-15/2027-02-10"], "crons": ["* * 0-6 * * SUN"]}
    path = f"/apis/tickwheel.io/v1alpha1/namespaces/{NAMESPACE}/calendars"
    cluster.request("POST", path, _object("Calendar", "closed", closed))
    for name, trigger in TRIGGERS.items():
        apply(cluster, _object("ScheduledTask", name, {"trigger": trigger, "pool": "shop", "handler": "quick"}))
    with Crew(cluster, tmp_path_factory.mktemp("cli"), system=SYSTEM, namespace=NAMESPACE) as crew:
        crew.operator("operator")
        until("it to lead", lambda: get(cluster, "LedgerSegment", SYSTEM)["items"])
        yield crew


@pytest.fixture
def tickwheel(shop: Crew) -> Callable[..., Result]:
    def call(*arguments: object) -> Result:
        where = ("-n", NAMESPACE, "--kubeconfig", shop.cluster.admin_kubeconfig)
        result = CliRunner().invoke(main, [str(argument) for argument in (*arguments, *where)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.mark.parametrize("name", TRIGGERS)
def test_next_and_the_published_status_agree_to_the_instant(
    shop: Crew, tickwheel: Callable[..., Result], name: str
) -> None:
    def answers() -> tuple[object, object]:
        shown = json.loads(tickwheel("next", name, "--count", 1, "-o", "json").stdout)
        task = get(shop.cluster, "ScheduledTask", NAMESPACE, name)
        return shown[0], (task.get("status") or {}).get("nextScheduleTime")

    # An instant may pass between the two, and a status is a second old.
    until("the same instant", lambda: len({*map(str, answers())}) == 1)


def test_a_backfill_runs_each_instant_once_however_often_it_is_asked_for(
    shop: Crew, tickwheel: Callable[..., Result], tmp_path: Path
) -> None:
    dry = json.loads(tickwheel("backfill", "by-hour", *SPAN, "--dry-run", "-o", "json").stdout)
    assert dry["instants"] == 6
    records = {"TICKWHEEL_TEST_RECORDS": str(tmp_path)}
    shop.worker("w-0", pool="shop", account="worker", handlers=HANDLERS, environment=records)
    for _ in range(2):
        result = tickwheel("backfill", "by-hour", *SPAN, "--max-parallel", 2)
        assert result.exit_code == 0, result.output
        assert "6 of 6 runs succeeded, 0 failed" in result.stdout
    assert "asked for before" in result.stdout
    instants = [1_730_419_200_000 + hour * 3_600_000 for hour in range(6)]
    done = [record.scheduled_ms for record in read_records(tmp_path) if record.what == "end"]
    # The hour may have struck meanwhile: then the task has fired by itself, too.
    assert sorted(at_ms for at_ms in done if at_ms < instants[-1] + 3_600_000) == instants


def test_what_is_not_there_is_told_in_plain_words(tickwheel: Callable[..., Result]) -> None:
    result = tickwheel("next", "nobody")
    assert result.exit_code == 1
    assert f"there is no ScheduledTask nobody in namespace {NAMESPACE}" in result.stderr


def test_that_somebody_serves_is_no_news(tickwheel: Callable[..., Result]) -> None:
    assert tickwheel("next", "by-cron", "--count", 1).stderr == ""


def test_whoever_may_read_one_namespaces_leases_is_told_that_its_operator_is_gone(cluster: Access) -> None:
    create_namespace(cluster, ABANDONED)
    metadata = {"name": "reader", "namespace": ABANDONED}
    spec = {
        "holderIdentity": "tickwheel-7",
        "leaseDurationSeconds": 15,
        "renewTime": "2026-01-01T00:00:00.000000Z",
    }
    rbac = "rbac.authorization.k8s.io"
    apply(
        cluster,
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata,
            "rules": [{
                "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["list"],
                "resourceNames": ["tickwheel-partition-0"],
            }],
        },
        {
            "apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", **metadata}],
        },
        {
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "tickwheel-partition-0", "namespace": ABANDONED}, "spec": spec,
        },
    )  # fmt: skip
    kubeconfig = cluster.service_account_kubeconfig(ABANDONED, "reader")

    def told() -> str:
        return CliRunner().invoke(main, ["ledger", "status", "-n", ABANDONED, "--kubeconfig", str(kubeconfig)]).stderr

    # A role is known to the API server's authorizer a moment later.
    until("the warning", lambda: "warning: no operator of Tickwheel leads: " in told())
    assert f"the Lease tickwheel-partition-0 in namespace {ABANDONED} expired " in told()
    assert "its last holder is tickwheel-7" in told()


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return custom_object(kind, NAMESPACE, name, spec)
