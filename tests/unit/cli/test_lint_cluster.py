"""`tickwheel lint --cluster`: tasks of files against what the live workers of pools have registered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from tests.unit.cli.api_server import ApiServer
from tests.unit.cli.manifest_texts import task, together

from tickwheel_operator.kinds.registered import MOST_HANDLERS

Call = Callable[..., Result]
Write = Callable[[str, str], Path]
DAILY = {"cron": "@daily"}
SYNC = {
    "name": "shop-sync",
    "parameters": {
        "type": "object",
        "properties": {"shop": {"type": "string"}, "region": {"enum": ["north", "south"]}},
        "required": ["shop"],
        "additionalProperties": False,
    },
}
TAKES = 'Handler shop-sync takes: shop (string, required), region ("north" or "south"); for example {"shop":"..."}'


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    with ApiServer(tmp_path) as server:
        yield server


@pytest.fixture
def lint(tickwheel: Call, write: Write, api: ApiServer) -> Callable[..., Result]:
    """Lint a file with these manifests."""

    def call(*manifests: str, options: tuple[str, ...] = ()) -> Result:
        file = write("tasks.yaml", together(*manifests))
        return tickwheel("lint", file, "--cluster", "--kubeconfig", api.kubeconfig, *options)

    return call


def put_pool(api: ApiServer, *handlers: dict[str, Any]) -> None:
    """A pool whose live workers registered these."""
    api.put("workerpools", {"metadata": {"name": "shops"}, "spec": {}, "status": {"handlers": list(handlers)}})


def test_tasks_that_fit_their_handlers_have_no_fault_and_each_pool_is_read_once(lint: Call, api: ApiServer) -> None:
    put_pool(api, SYNC)
    result = lint(*(task(DAILY, f"sync-{number}", parameters={"shop": "a"}) for number in range(3)))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "3 objects in 1 file: no fault\n", "")
    assert len([path for path in api.asked if "workerpools" in path]) == 1


def test_parameters_that_the_handler_refuses_are_a_fault_each_with_line_field_and_what_is_allowed(
    lint: Call, api: ApiServer
) -> None:
    put_pool(api, SYNC)
    text = task(DAILY, parameters={"shop": 7, "region": "east"})
    result = lint(text)
    lines = {name: number for number, line in enumerate(text.splitlines(), 1) for name in ("shop", "region")
             if f'"{name}":' in line}  # fmt: skip
    at = "ScheduledTask/shop-sync: spec.parameters"
    assert result.exit_code == 1
    assert sorted(result.stdout.splitlines()) == sorted([
        f'tasks.yaml:{lines["shop"]}: {at}.shop: 7 is not of type "string". {TAKES}',
        f'tasks.yaml:{lines["region"]}: {at}.region: "east" is not one of "north" or "south". {TAKES}',
    ])  # fmt: skip
    assert lint(task(DAILY)).stdout.endswith(f'{at}: "shop" is a required property. {TAKES}\n')


def test_a_handler_that_no_live_worker_has_may_be_rolled_out_later_so_it_is_a_warning(
    lint: Call, api: ApiServer
) -> None:
    put_pool(api, {"name": "shop-sync"}, {"name": "other"})
    result = lint(task(DAILY, handler="shop-snyc"))
    assert (result.exit_code, result.stdout) == (0, "1 object in 1 file: no fault\n")
    assert "warning: ScheduledTask/shop-sync: spec.handler: 'shop-snyc' is not registered by the live" in result.stderr
    assert "pool shops (did you mean shop-sync?); registered: shop-sync, other. Its runs wait until" in result.stderr


def test_parameters_that_an_older_or_newer_worker_may_take_are_a_warning(lint: Call, api: ApiServer) -> None:
    put_pool(api, {**SYNC, "differ": True})
    result = lint(task(DAILY, parameters={"shop": 7}))
    assert result.exit_code == 0
    assert "warning: ScheduledTask/shop-sync: spec.parameters.shop: 7 is not of type" in result.stderr
    assert "Live workers of the pool differ, so that others may take it" in result.stderr


def test_a_run_by_hand_may_bring_the_parameters_that_its_task_does_not_have(lint: Call, api: ApiServer) -> None:
    put_pool(api, SYNC)
    result = lint(task(None, parameters={"region": "east"}))
    assert result.exit_code == 0
    assert "warning: ScheduledTask/shop-sync: spec.parameters.region: " in result.stderr
    assert "A run that gives no other value is refused" in result.stderr
    assert "required property" not in result.stderr


@pytest.mark.parametrize("is_there", [True, False])
def test_a_pool_of_which_nothing_is_known_is_one_warning(lint: Call, api: ApiServer, is_there: bool) -> None:
    if is_there:
        put_pool(api)
    result = lint(task(DAILY, "a"), task(DAILY, "b"))
    assert (result.exit_code, len(result.stderr.splitlines())) == (0, 1)
    why = (
        "no live worker of pool shops in namespace shops has registered a handler"
        if is_there
        else "the cluster has no WorkerPool shops in namespace shops"
    )
    assert f"warning: ScheduledTask/a: spec.pool: {why}: the handlers and parameters of its tasks are" in result.stderr


def test_a_handler_without_a_schema_takes_anything(lint: Call, api: ApiServer) -> None:
    put_pool(api, {"name": "shop-sync"})
    assert lint(task(DAILY, parameters={"shop": 7})).stderr == ""


def test_a_status_that_has_no_room_for_all_handlers_calls_none_unknown(lint: Call, api: ApiServer) -> None:
    put_pool(api, *({"name": f"h{number}"} for number in range(MOST_HANDLERS)))
    assert lint(task(DAILY)).stderr == ""


def test_manifests_without_a_namespace_are_in_that_of_the_context_or_of_the_option(lint: Call, api: ApiServer) -> None:
    put_pool(api, SYNC)
    assert lint(task(DAILY, parameters={"shop": "a"})).stderr == ""
    assert "WorkerPool shops in namespace other" in lint(task(DAILY), options=("-n", "other")).stderr
    named = task(DAILY, metadata={"namespace": "third"})
    assert "WorkerPool shops in namespace third" in lint(named).stderr


def test_an_invalid_task_is_reported_and_not_asked_for(lint: Call, api: ApiServer) -> None:
    result = lint(task({"cron": "@dayly"}))
    assert result.exit_code == 1
    assert "spec.trigger.cron" in result.stdout
    assert not [path for path in api.asked if "workerpools" in path]


def test_findings_of_the_cluster_are_in_the_list_for_programs(lint: Call, api: ApiServer) -> None:
    put_pool(api, SYNC)
    found = json.loads(lint(task(DAILY, parameters={"shop": 7}), options=("-o", "json")).stdout)
    assert [(one["path"], one["warning"]) for one in found] == [("spec.parameters.shop", False)]


def test_whoever_may_not_read_the_pool_is_told_which_right_to_ask_for(lint: Call, api: ApiServer) -> None:
    api.refusals["workerpools"] = 403
    result = lint(task(DAILY))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Error: you may not get WorkerPool shops in namespace shops" in result.stderr
    assert "ask for a Role with the verb get on workerpools.tickwheel.io" in result.stderr


def test_an_api_server_that_does_not_answer_is_an_error_that_says_so(lint: Call, api: ApiServer) -> None:
    api.broken = 1_000
    result = lint(task(DAILY))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Error: " in result.stderr
    assert "try again" in result.stderr


def test_without_a_kubeconfig_there_is_no_cluster_to_ask(tickwheel: Call, write: Write) -> None:
    result = tickwheel("lint", write("tasks.yaml", task(DAILY)), "--cluster")
    assert result.exit_code == 1
    assert "Error: there is no kubeconfig: " in result.stderr


def test_options_that_name_a_cluster_are_refused_where_none_is_asked(tickwheel: Call, write: Write) -> None:
    result = tickwheel("lint", write("tasks.yaml", task(DAILY)), "--context", "shops")
    assert result.exit_code == 2
    assert "--context and --kubeconfig name the cluster of --cluster" in result.stderr
