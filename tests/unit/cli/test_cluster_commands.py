"""`tickwheel next TASK` and `tickwheel backfill` against an API server: what is asked, and what people are told."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from tests.unit.cli.api_server import ApiServer
from tests.unit.cli.manifest_texts import calendar, task

from tickwheel_operator.cli import following

Call = Callable[..., Result]
SPAN = ("--from", "2024-11-01T00:00:00Z", "--to", "2024-11-11T00:00:00Z")
NAME = "shop-sync-backfill-21258dd649"
"""The same in every version, or a command given again would not find what it made."""


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.setattr(following, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(following, "_STALLED_FOR_S", 0.05)
    with ApiServer(tmp_path) as server:
        yield server


@pytest.fixture
def cli(tickwheel: Call, api: ApiServer) -> Call:
    return lambda *arguments: tickwheel(*arguments, "--kubeconfig", api.kubeconfig)


@pytest.fixture
def shop_sync(api: ApiServer) -> None:
    """A task that fires daily, except on two days."""
    api.put("scheduledtasks", json.loads(task({"cron": "0 9 * * *", "calendars": [{"name": "closed"}]})))
    api.put("calendars", json.loads(calendar("closed", "2024-11-02/2024-11-03")))


def ended(succeeded: int, failed: int) -> dict[str, Any]:
    outcome = {
        "type": "Succeeded",
        "status": "False" if failed else "True",
        "reason": "Ended",
        "message": "2 instants failed",
    }
    return {**at(succeeded, failed), "state": "Failed" if failed else "Succeeded", "conditions": [outcome]}


def at(succeeded: int, failed: int = 0) -> dict[str, Any]:
    counts = {"total": 8, "succeeded": succeeded, "failed": failed}
    return {"state": "Running", "dispatches": counts, "conditions": [{"type": "Succeeded", "status": "Unknown"}]}


def put_with_status(api: ApiServer, trigger: dict[str, Any], *, ready: str, stalled: str = "", **status: str) -> None:
    """A task that the operator has looked at."""
    conditions = [
        {"type": "Ready", "status": ready, "reason": "Said", "message": stalled},
        {"type": "Stalled", "status": "True" if stalled else "False", "reason": "Said", "message": stalled},
    ]
    api.put("scheduledtasks", json.loads(task(trigger)) | {"status": {**status, "conditions": conditions}})


# --- whether anybody serves ---


def lease(seconds_ago: float, holder: str = "tickwheel-1") -> dict[str, Any]:
    """The operator's Lease, renewed so long ago."""
    renewed = datetime.fromtimestamp(time.time() - seconds_ago, tz=UTC).isoformat(timespec="microseconds")
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed.replace("+00:00", "Z")}
    return {"metadata": {"name": "tickwheel-partition-0", "namespace": "tickwheel-system"}, "spec": spec}


@pytest.mark.parametrize(
    ("ages_s", "holder", "told"),
    [
        ([], "", "there is no Lease tickwheel-partition-0 in any namespace"),
        ([7_330], "tickwheel-1", "expired 2h1m ago; its last holder is tickwheel-1"),
        ([7_330], "", "was given up by the last one and taken by nobody"),
    ],
)
@pytest.mark.usefixtures("shop_sync")
def test_that_no_operator_serves_is_said_and_the_answer_stays_what_it_is(
    cli: Call, api: ApiServer, ages_s: list[int], holder: str, told: str
) -> None:
    api.leases = [lease(age_s, holder) for age_s in ages_s]
    result = cli("next", "shop-sync", "--from", "2024-11-01T09:00:01Z", "--count", 1, "-o", "json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, ["2024-11-04T09:00:00Z"])
    assert result.stderr.startswith("warning: no operator of Tickwheel leads: ")
    assert told in result.stderr
    assert "section NobodyServes" in result.stderr


@pytest.mark.parametrize("ages_s", [None, [2], [7_200, 1], [40]])
@pytest.mark.usefixtures("shop_sync")
def test_nothing_is_said_while_one_serves_or_where_leases_may_not_be_read(
    cli: Call, api: ApiServer, ages_s: list[int] | None
) -> None:
    api.leases = None if ages_s is None else [lease(age_s) for age_s in ages_s]
    assert cli("next", "shop-sync", "-o", "json").stderr == ""


def test_a_next_instant_that_is_long_past_says_that_nobody_serves(cli: Call, api: ApiServer) -> None:
    put_with_status(api, {"cron": "@daily"}, ready="True", nextScheduleTime="2026-01-01T00:00:00Z")
    told = cli("next", "shop-sync").stderr
    assert "warning: its status knows no later instant than one " in told
    assert "no operator of Tickwheel seems to serve it" in told
    put_with_status(api, {"cron": "@daily"}, ready="True", nextScheduleTime="2999-01-01T00:00:00Z")
    assert cli("next", "shop-sync").stderr == ""
    put_with_status(api, {"cron": "@daily"}, ready="False", stalled="x", nextScheduleTime="2026-01-01T00:00:00Z")
    assert cli("next", "shop-sync").stderr == "", "a stalled task has no next instant"


# --- next ---


@pytest.mark.usefixtures("shop_sync")
def test_next_reads_the_task_and_its_calendars(cli: Call) -> None:
    result = cli("next", "shop-sync", "--from", "2024-11-01T09:00:01Z", "--count", 2, "-o", "json")
    assert json.loads(result.stdout) == ["2024-11-04T09:00:00Z", "2024-11-05T09:00:00Z"]
    assert result.stderr == ""


def test_a_stalled_task_is_shown_with_the_operators_words(cli: Call, api: ApiServer) -> None:
    put_with_status(api, {"cron": "@daily"}, ready="False", stalled="there is no WorkerPool shops")
    told = cli("next", "shop-sync").output
    assert "\nstalled, so that none of these fires: there is no WorkerPool shops\n" in told
    assert "no worker" not in told


def test_a_task_whose_handler_nobody_registered_fires_and_is_said_to_wait(cli: Call, api: ApiServer) -> None:
    put_with_status(api, {"cron": "@daily"}, ready="True", stalled="spec.handler: 'noh' is not registered")
    told = cli("next", "shop-sync").output
    assert "\nno worker can run it yet: spec.handler: 'noh' is not registered\n" in told
    assert "none of these fires" not in told


def test_of_what_follows_runs_the_one_instant_that_its_status_knows_is_told(cli: Call, api: ApiServer) -> None:
    put_with_status(api, {"fixedDelay": "30s"}, ready="True", nextScheduleTime="2026-11-21T13:51:59.417Z")
    assert "depend on when runs end" in cli("next", "shop-sync").output
    assert "; the next one is 2026-11-21T13:51:59.417Z\n" in cli("next", "shop-sync").output
    assert json.loads(cli("next", "shop-sync", "-o", "json").stdout) == []


def test_without_a_kubeconfig_it_is_said_that_there_is_none(tickwheel: Call, tmp_path: Path) -> None:
    absent = tmp_path / "no-kubeconfig"
    for options in ((), ("--kubeconfig", absent)):
        result = tickwheel("next", "shop-sync", *options)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"there is no kubeconfig: {absent} does not exist; name one with --kubeconfig" in result.stderr


def test_a_task_that_is_not_there_is_named_with_its_namespace(cli: Call) -> None:
    result = cli("next", "shop-sync")
    assert result.exit_code == 1
    assert "there is no ScheduledTask shop-sync in namespace shops" in result.stderr
    assert "namespace ops" in cli("next", "shop-sync", "-n", "ops").stderr


def test_a_calendar_that_is_not_there_is_named(cli: Call, api: ApiServer) -> None:
    api.put("scheduledtasks", json.loads(task({"cron": "@daily", "calendars": [{"name": "closed"}]})))
    result = cli("next", "shop-sync", "-o", "json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "spec.trigger.calendars[0].name: there is no Calendar closed in namespace shops" in result.stderr


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "does not accept these credentials"),
        (403, "ask for a Role with the verb get on scheduledtasks.tickwheel.io"),
        (500, "refused to get ScheduledTask shop-sync in namespace shops: scheduledtasks is not for you"),
    ],
)
def test_what_the_api_server_refuses_is_told_in_plain_words(cli: Call, api: ApiServer, status: int, told: str) -> None:
    api.refusals["scheduledtasks"] = status
    result = cli("next", "shop-sync")
    assert result.exit_code == 1
    assert told in result.stderr


def test_a_cluster_without_tickwheel_is_said_to_be_one(cli: Call, api: ApiServer) -> None:
    api.kinds.clear()
    result = cli("next", "shop-sync")
    assert result.exit_code == 1
    assert "install Tickwheel there" in result.stderr


def test_a_connection_that_breaks_is_no_traceback(cli: Call, api: ApiServer) -> None:
    api.broken = 10
    result = cli("next", "shop-sync")
    assert result.exit_code == 1
    assert "get ScheduledTask shop-sync in namespace shops: the connection to http://127.0.0.1" in result.stderr
    assert "failed" in result.stderr and result.stderr.rstrip().endswith("; try again")


# --- backfill ---


@pytest.mark.usefixtures("shop_sync")
def test_a_backfill_is_one_taskrun_that_is_followed_to_its_end(cli: Call, api: ApiServer) -> None:
    api.states = iter([{}, at(3), at(7), ended(8, 0)])
    result = cli("backfill", "shop-sync", *SPAN, "--max-parallel", 4)
    assert result.exit_code == 0, result.output
    made = api.objects["taskruns", "shops", NAME]
    wanted = {"from": "2024-11-01T00:00:00Z", "to": "2024-11-11T00:00:00Z", "maxParallel": 4}
    assert made["spec"] == {"task": "shop-sync", "backfill": wanted}
    assert result.stdout.splitlines()[-1] == f"{NAME} succeeded: 8 of 8 runs succeeded, 0 failed"


@pytest.mark.usefixtures("shop_sync")
def test_the_same_command_again_makes_nothing_and_goes_on_watching(cli: Call, api: ApiServer) -> None:
    assert cli("backfill", "shop-sync", *SPAN, "--no-wait").exit_code == 0
    api.states = iter([at(8), ended(8, 0)])
    # The same span, spelt otherwise.
    local = ("--from", "2024-11-01", "--to", "2024-11-11T08:00:00+08:00")
    result = cli("backfill", "shop-sync", *local)
    assert result.exit_code == 0, result.output
    assert "asked for before" in result.stdout
    assert [key for key in api.objects if key[0] == "taskruns"] == [("taskruns", "shops", NAME)]


@pytest.mark.usefixtures("shop_sync")
def test_a_taskrun_of_that_name_that_is_another_is_left_alone(cli: Call, api: ApiServer) -> None:
    assert cli("backfill", "shop-sync", *SPAN, "--no-wait", "--max-parallel", 4, "--name", "mine").exit_code == 0
    result = cli("backfill", "shop-sync", *SPAN, "--no-wait", "--max-parallel", 5, "--name", "mine")
    assert result.exit_code == 1
    assert "there is another TaskRun mine: maxParallel is 4 there, not 5" in result.stderr
    assert cli("backfill", "shop-sync", *SPAN, "--no-wait", "--name", "mine").exit_code == 0
    shorter = ("--from", "2024-11-01T00:00:00Z", "--to", "2024-11-10T00:00:00Z")
    result = cli("backfill", "shop-sync", *shorter, "--no-wait", "--name", "mine")
    assert result.exit_code == 1
    assert "to is '2024-11-11T00:00:00Z' there, not '2024-11-10T00:00:00Z'" in result.stderr


@pytest.mark.usefixtures("shop_sync")
def test_a_backfill_that_failed_exits_1(cli: Call, api: ApiServer) -> None:
    api.states = iter([at(3), ended(6, 2)])
    result = cli("backfill", "shop-sync", *SPAN)
    assert result.exit_code == 1
    assert "failed: 6 of 8 runs succeeded, 2 failed; 2 instants failed" in result.stdout
    again = cli("backfill", "shop-sync", *SPAN, "-o", "json")
    assert again.exit_code == 1
    shown = json.loads(again.stdout)
    assert (shown["name"], shown["state"], shown["succeeded"], shown["failed"]) == (NAME, "Failed", 6, 2)


@pytest.mark.usefixtures("shop_sync")
def test_a_request_that_stays_stalled_ends_the_watching_with_the_operators_words(cli: Call, api: ApiServer) -> None:
    stalled = {"type": "Stalled", "status": "True", "reason": "NoSuchTask", "message": "there is no ScheduledTask"}
    api.states = iter([{"conditions": [stalled]}])
    result = cli("backfill", "shop-sync", *SPAN)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == f"{NAME} stalled; there is no ScheduledTask"


@pytest.mark.usefixtures("shop_sync")
def test_a_request_that_was_stalled_for_a_moment_is_followed(cli: Call, api: ApiServer) -> None:
    def states() -> Iterator[dict[str, Any]]:
        time.sleep(2 * following._STALLED_FOR_S)  # the API server was away for longer than that
        yield {"conditions": [stalled]}
        yield at(1)
        yield ended(8, 0)

    stalled = {"type": "Stalled", "status": "True", "reason": "NoSuchTask", "message": "there is no ScheduledTask"}
    api.states = states()
    assert cli("backfill", "shop-sync", *SPAN).exit_code == 0


@pytest.mark.usefixtures("shop_sync")
def test_a_cancelled_backfill_exits_1(cli: Call, api: ApiServer) -> None:
    api.states = iter([{**ended(2, 1), "state": "Cancelled"}])
    result = cli("backfill", "shop-sync", *SPAN)
    assert result.exit_code == 1
    assert "cancelled: 2 of 8" in result.stdout


@pytest.mark.usefixtures("shop_sync")
def test_an_api_server_that_restarts_does_not_end_the_watching(cli: Call, api: ApiServer) -> None:
    def states() -> Iterator[dict[str, Any]]:
        yield at(1)
        api.broken = 7
        yield at(2)
        yield ended(8, 0)

    api.states = states()
    result = cli("backfill", "shop-sync", *SPAN)
    assert result.exit_code == 0, result.output
    assert api.broken == 0


@pytest.mark.usefixtures("shop_sync")
def test_a_taskrun_that_is_deleted_meanwhile_ends_the_watching(cli: Call, api: ApiServer) -> None:
    def states() -> Iterator[dict[str, Any]]:
        yield at(1)
        del api.objects["taskruns", "shops", NAME]
        yield at(2)

    api.states = states()
    result = cli("backfill", "shop-sync", *SPAN)
    assert result.exit_code == 1
    assert f"the TaskRun {NAME} in namespace shops was deleted" in result.stderr


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As in a terminal: a process that a shell started in the background ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("shop_sync", "interruptible")
def test_ctrl_c_ends_the_watching_and_says_how_to_go_on(cli: Call, api: ApiServer) -> None:
    def states() -> Iterator[dict[str, Any]]:
        yield at(1)
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            yield at(1)

    api.states = states()
    result = cli("backfill", "shop-sync", *SPAN)
    assert result.exit_code == 130
    assert f"{NAME} goes on" in result.stderr
    assert f"kubectl patch taskruns.tickwheel.io {NAME} -n shops" in result.stderr
    assert ("taskruns", "shops", NAME) in api.objects


@pytest.mark.usefixtures("shop_sync")
def test_a_dry_run_counts_and_makes_nothing(cli: Call, api: ApiServer) -> None:
    result = cli("backfill", "shop-sync", *SPAN, "--dry-run", "-o", "json")
    assert json.loads(result.stdout) == {
        "from": "2024-11-01T00:00:00Z", "to": "2024-11-11T00:00:00Z", "instants": 8,
        "first": "2024-11-01T09:00:00Z", "last": "2024-11-10T09:00:00Z",
    }  # fmt: skip
    shown = cli("backfill", "shop-sync", *SPAN, "--dry-run").stdout
    assert "8 instants" in shown
    assert "last  2024-11-10T09:00:00Z" in shown
    assert not [request for request in api.asked if request.startswith("POST")]


@pytest.mark.usefixtures("shop_sync")
def test_the_first_instant_counts_and_the_last_one_does_not(cli: Call) -> None:
    edges = ("--from", "2024-11-05T09:00:00Z", "--to", "2024-11-06T09:00:00Z", "--dry-run", "-o", "json")
    span = json.loads(cli("backfill", "shop-sync", *edges).stdout)
    assert (span["instants"], span["first"], span["last"]) == (1, "2024-11-05T09:00:00Z", "2024-11-05T09:00:00Z")
    shown = json.loads(cli("next", "shop-sync", *edges[:2], "--count", 1, "-o", "json").stdout)
    assert shown == ["2024-11-06T09:00:00Z"], "next leaves it out, and both say so"


def test_a_span_that_begins_in_a_gap_has_the_instant_at_its_end(cli: Call, api: ApiServer) -> None:
    api.put("scheduledtasks", json.loads(task({"cron": "30 2 * * *", "timeZone": "Europe/Berlin"})))
    day = ("--from", "2026-03-29T02:30", "--to", "2026-03-30T02:30", "--dry-run", "-o", "json")
    span = json.loads(cli("backfill", "shop-sync", *day).stdout)
    assert (span["from"], span["instants"], span["first"]) == ("2026-03-29T01:00:00Z", 1, "2026-03-29T01:00:00Z")
    before = ("--from", "2026-03-28T02:30", "--to", "2026-03-29T02:30", "--dry-run", "-o", "json")
    assert json.loads(cli("backfill", "shop-sync", *before).stdout)["instants"] == 1


@pytest.mark.usefixtures("shop_sync")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--from", "2024-11-02", "--to", "2024-11-04"), "has no instant from 2024-11-02T00:00:00Z until before"),
        (("--from", "2024-11-04", "--to", "2024-11-02"), "'--to'"),
        (("--from", "2024-11-04"), "'--to'"),
        (("--from", "2024-11-04", "--to", "2999-01-01"), "is in the future"),
        ((*SPAN, "--max-parallel", "0"), "'--max-parallel'"),
        ((*SPAN, "--name", "No Name"), "--name"),
    ],
)
def test_a_wrong_call_names_what_is_wrong_and_makes_nothing(
    cli: Call, api: ApiServer, arguments: tuple[str, ...], told: str
) -> None:
    result = cli("backfill", "shop-sync", *arguments)
    assert result.exit_code != 0
    assert told in result.stderr
    assert not [request for request in api.asked if request.startswith("POST")]


def test_a_span_with_more_instants_than_the_operator_takes_is_refused_at_once(cli: Call, api: ApiServer) -> None:
    api.put("scheduledtasks", json.loads(task({"fixedRate": "10ms", "anchor": "2020-01-01T00:00:00Z"})))
    result = cli("backfill", "shop-sync", *SPAN)
    assert result.exit_code == 1
    assert "more than 1,000,000 instants" in result.stderr
    assert not [request for request in api.asked if request.startswith("POST")]


def test_a_task_without_instants_cannot_be_backfilled(cli: Call, api: ApiServer) -> None:
    api.put("scheduledtasks", json.loads(task({"fixedDelay": "30s"})))
    result = cli("backfill", "shop-sync", *SPAN)
    assert result.exit_code == 1
    assert "shops/shop-sync cannot be backfilled: its instants depend on when runs end" in result.stderr
