"""`tickwheel lint`: one line for each fault, and advice that fails nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from tests.unit.cli.manifest_texts import calendar, task, together

from tickwheel_operator.cli.main import main

Call = Callable[..., Result]
Write = Callable[[str, str], Path]

GOOD = """\
apiVersion: tickwheel.io/v1alpha1
kind: WorkerPool
metadata: {name: shops, namespace: shops}
spec: {replicas: 2}
---
# a comment
apiVersion: tickwheel.io/v1alpha1
kind: ScheduledTask
metadata:
  name: shop-sync
  namespace: shops
spec:
  trigger:
    cron: "0 9 * * MON-FRI"
    timeZone: Asia/Shanghai
  pool: shops
  handler: shop-sync
"""


def test_good_manifests_exit_0(tickwheel: Call, write: Write) -> None:
    result = tickwheel("lint", write("good.yaml", GOOD))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "2 objects in 1 file: no fault\n", "")


def test_a_fault_is_one_line_with_file_line_object_field_what_is_wrong_and_what_is_allowed(
    tickwheel: Call, write: Write
) -> None:
    bad = GOOD.replace("0 9 * *", "0 25 * *").replace("handler: shop-sync", "handlr: shop-sync\n  priority: 5000")
    result = tickwheel("lint", write("bad.yaml", bad))
    assert result.exit_code == 1
    lines = sorted(result.stdout.splitlines())
    assert [line.split(": ", 3)[:3] for line in lines] == [
        ["bad.yaml:12", "ScheduledTask/shop-sync", "spec.handler"],
        ["bad.yaml:17", "ScheduledTask/shop-sync", "spec.handlr"],
        ["bad.yaml:18", "ScheduledTask/shop-sync", "spec.priority"],
    ]
    assert lines[1].endswith("is not a field; did you mean handler? " + lines[1].split("handler? ")[1])
    assert lines[2].endswith("5000 is too large; the most is 1000")


def test_what_the_schema_cannot_say_is_a_fault_too(tickwheel: Call, write: Write) -> None:
    bad = GOOD.replace("0 9 * *", "0 25 * *").replace("Asia/Shanghai", "Asia/Shangai")
    lines = tickwheel("lint", write("bad.yaml", bad)).stdout.splitlines()
    assert lines[0].startswith("bad.yaml:14: ScheduledTask/shop-sync: spec.trigger.cron: hour field: '25'")
    assert "allowed: 0-23" in lines[0]
    assert lines[1].startswith("bad.yaml:15: ScheduledTask/shop-sync: spec.trigger.timeZone: 'Asia/Shangai'")
    assert "did you mean Asia/Shanghai" in lines[1]


@pytest.mark.parametrize(
    ("trigger", "path"),
    [
        ({"cron": "0 0 30 2 *"}, "spec.trigger.cron"),
        ({"cron": "@daily", "window": {"notAfter": "2020-01-01T00:00:00Z"}}, "spec.trigger.window"),
        ({"cron": "@daily", "calendars": [{"name": "closed", "rule": "Include"}]}, "spec.trigger.calendars"),
    ],
)
def test_what_can_never_fire_is_refused(tickwheel: Call, write: Write, trigger: dict[str, Any], path: str) -> None:
    file = write("never.yaml", together(task(trigger), calendar("closed", "2020-01-01")))
    result = tickwheel("lint", file)
    assert result.exit_code == 1
    assert f"ScheduledTask/shop-sync: {path}: " in result.stdout
    assert "never fire" in result.stdout
    assert len(result.stdout.splitlines()) == 1


def test_what_this_version_does_not_do_is_a_fault(tickwheel: Call, write: Write) -> None:
    result = tickwheel("lint", write("task.yaml", task({"cron": "@daily"}, orderingKey="/shop")))
    assert result.exit_code == 1
    assert "spec.orderingKey: orderingKey /shop is not supported by this version" in result.stdout


def test_a_pool_is_checked_as_the_operator_does(tickwheel: Call, write: Write) -> None:
    pods = "template: {spec: {hostNetwork: true, containers: [{name: worker, image: shop}]}}"
    result = tickwheel("lint", write("pool.yaml", GOOD.replace("replicas: 2", f"replicas: 2, {pods}")))
    assert result.exit_code == 1
    assert "pool.yaml:4: WorkerPool/shops: spec.template.spec.hostNetwork: " in result.stdout


def test_advice_is_a_warning_on_standard_error_and_fails_nothing(tickwheel: Call, write: Write) -> None:
    file = write("task.yaml", GOOD.replace("MON-FRI", "1-5"))
    result = tickwheel("lint", file)
    assert (result.exit_code, result.stdout) == (0, "2 objects in 1 file: no fault\n")
    assert result.stderr.startswith(
        "task.yaml:14: warning: ScheduledTask/shop-sync: spec.trigger.cron: day of week '1-5'"
    )
    assert "in Quartz 1 is Sunday" in result.stderr


def test_a_calendars_expressions_are_advised_on_too(tickwheel: Call, write: Write) -> None:
    result = tickwheel("lint", write("closed.yaml", calendar("closed", crons=["* * * ? * 1"])))
    assert result.exit_code == 0
    assert "Calendar/closed: spec.crons[0]: day of week '1' has numbers" in result.stderr


def test_a_calendar_that_is_not_among_the_files_may_be_in_the_cluster(tickwheel: Call, write: Write) -> None:
    uses = {"cron": "@daily", "calendars": [{"name": "closed"}, {"name": "open", "rule": "Include"}]}
    result = tickwheel("lint", write("task.yaml", together(task(uses), calendar("closed", "2026-12-25"))))
    assert result.exit_code == 0
    assert (
        "warning: ScheduledTask/shop-sync: spec.trigger.calendars[1].name: there is no valid Calendar open"
        in result.stderr
    )
    assert "closed" not in result.stderr


def test_instants_that_are_all_past_are_worth_a_warning(tickwheel: Call, write: Write) -> None:
    result = tickwheel("lint", write("task.yaml", task({"once": {"at": "2020-01-01T00:00:00Z"}})))
    assert result.exit_code == 0
    assert "warning: ScheduledTask/shop-sync: spec.trigger: all its instants are past" in result.stderr


def test_a_name_that_stands_twice_is_a_fault_and_another_namespace_is_not(tickwheel: Call, write: Write) -> None:
    other = task({"cron": "@daily"}, metadata={"namespace": "shops"})
    write("set/a.yaml", together(task({"cron": "@daily"}), other))
    assert tickwheel("lint", "set").exit_code == 0
    write("set/b.yaml", task({"cron": "@hourly"}))
    result = tickwheel("lint", "set")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("set/b.yaml:5: ScheduledTask/shop-sync: metadata.name: stands twice: set/a.yaml:5 has")
    result = tickwheel("lint", "-n", "shops", "set/a.yaml")
    assert result.exit_code == 1, "both are of the namespace shops then"


def test_yaml_that_cannot_be_read_is_told_with_its_line_and_the_rest_is_checked(tickwheel: Call, write: Write) -> None:
    write("set/a.yaml", "apiVersion: tickwheel.io/v1alpha1\nkind: Calendar\n  metadata: {name: x}\n")
    write("set/b.yaml", "- just\n- a list\n")
    write("set/c.yaml", "kind: ScheduledTask\nkind: Calendar\n")
    write("set/d.yaml", calendar("closed", "2026-13-01"))
    result = tickwheel("lint", "set")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("set/a.yaml:3:11: this is not YAML: mapping values are not allowed in this context")
    assert lines[1].startswith("set/c.yaml:2:1: the key 'kind' is there twice")
    assert lines[2].startswith("set/d.yaml:9: Calendar/closed: spec.dates[0]: '2026-13-01' is no date")
    assert len(lines) == 3


def test_what_is_no_object_is_passed_over_in_a_folder_and_a_fault_where_it_is_named(
    tickwheel: Call, write: Write
) -> None:
    patch = "- op: replace\n  path: /spec\n---\n"
    write("set/patch.yaml", patch + GOOD.replace("MON-FRI", "XYZ"))
    result = tickwheel("lint", "set")
    assert [line.split(": ")[0] for line in result.stdout.splitlines()] == ["set/patch.yaml:17"], "the rest is read"
    result = tickwheel("lint", "set/patch.yaml")
    assert result.stdout.startswith("set/patch.yaml:1:1: document 1 is not an object")
    write("set/patch.yaml", "- apiVersion: tickwheel.io/v1alpha1\n  kind: ScheduledTask\n")
    assert "set/patch.yaml:1:1: document 1 is not an object" in tickwheel("lint", "set").stdout, "it is meant for us"


def test_tasks_that_follow_each_other_in_a_circle_are_refused(tickwheel: Call, write: Write) -> None:
    def follower(name: str, followed: str) -> str:
        return task({"completion": {"task": followed}}, name)

    pairs = [("a", "b"), ("b", "a"), ("self", "self"), ("last", "a")]
    write("set/tasks.yaml", together(*(follower(*pair) for pair in pairs)))
    result = tickwheel("lint", "set")
    assert (result.exit_code, result.stderr) == (1, "")
    assert [line.split(": ", 1)[1] for line in result.stdout.splitlines()] == [
        f"ScheduledTask/{name}: spec.trigger.completion.task: {chain} is a circle, in which a run would follow itself; "
        "break it"
        for name, chain in (("a", "a -> b -> a"), ("b", "b -> a -> b"), ("self", "self -> self"))
    ]


def test_a_task_that_is_followed_and_not_among_the_files_may_be_in_the_cluster(tickwheel: Call, write: Write) -> None:
    follower = task({"completion": {"task": "shop-sync"}}, "report", metadata={"namespace": "shops"})
    write("set/report.yaml", follower)
    result = tickwheel("lint", "set")
    assert result.exit_code == 0
    assert "ScheduledTask/report: spec.trigger.completion.task: there is no ScheduledTask shop-sync" in result.stderr
    write("set/good.yaml", GOOD.replace("MON-FRI", "XYZ"))
    assert tickwheel("lint", "set").stderr == "", "with a fault of its own, it is there nevertheless"


@pytest.mark.parametrize(
    ("trigger", "more", "path"),
    [
        ({"fixedRate": "24h", "timeZone": "Europe/Berlin"}, {}, "spec.trigger.timeZone: decides no instant"),
        ({"once": {"at": "2100-01-01T00:00:00Z"}, "timeZone": "Asia/Tokyo"}, {}, "spec.trigger.timeZone"),
        ({"cron": "@daily"}, {"concurrency": {"policy": "Forbid", "queueLimit": 7}}, "spec.concurrency.queueLimit"),
        ({"cron": "@daily"}, {"misfire": {"policy": "Skip", "maxCatchUp": 7}}, "spec.misfire.maxCatchUp"),
    ],
)
def test_what_has_no_effect_beside_the_rest_is_worth_a_warning(
    tickwheel: Call, write: Write, trigger: dict[str, Any], more: dict[str, Any], path: str
) -> None:
    result = tickwheel("lint", write("task.yaml", task(trigger, **more)))
    assert result.exit_code == 0
    assert f"warning: ScheduledTask/shop-sync: {path}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_rule_for_the_end_of_a_delay_without_one_is_worth_a_warning(tickwheel: Call, write: Write) -> None:
    run = (
        "{apiVersion: tickwheel.io/v1alpha1, kind: TaskRun, metadata: {name: r}, spec: {task: a, onExpiry: FireNow%s}}"
    )
    result = tickwheel("lint", write("run.yaml", run % ""))
    assert result.exit_code == 0
    assert "warning: TaskRun/r: spec.onExpiry: has no effect without delay" in result.stderr
    assert tickwheel("lint", write("run.yaml", run % ", delay: 1m")).stderr == ""


def test_what_an_api_server_fills_in_is_nothing_to_warn_of(tickwheel: Call, write: Write) -> None:
    filled = {
        "concurrency": {"policy": "Allow", "queueLimit": 100},
        "misfire": {"policy": "FireOnce", "maxCatchUp": 100},
    }
    write("task.yaml", task({"fixedRate": "90s", "timeZone": "UTC"}, **filled))
    assert tickwheel("lint", "task.yaml").stderr == ""
    used = {"concurrency": {"policy": "Queue", "queueLimit": 7}, "misfire": {"policy": "FireAll", "maxCatchUp": 7}}
    write("used.yaml", task({"cron": "@daily", "timeZone": "Asia/Tokyo"}, **used))
    assert tickwheel("lint", "used.yaml").stderr == ""


def test_a_name_that_cannot_be_one_is_told_in_words(tickwheel: Call, write: Write) -> None:
    result = tickwheel("lint", write("task.yaml", task({"cron": "@daily"}, "Shop_Sync")))
    assert "metadata.name: 'Shop_Sync' is not allowed; expected the name of an object: small letters" in result.stdout


def test_a_closed_standard_input_is_a_fault_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    for arguments in (["lint", "-"], ["calendar", "import", "-", "--name", "x"]):
        with pytest.raises(SystemExit) as ended:
            main.main(arguments)
        assert ended.value.code == 1
        told = capsys.readouterr()
        assert "cannot be read: the standard input is closed" in told.out + told.err


def test_a_full_disk_is_told_and_no_traceback() -> None:
    """In a process of its own: what stays in the buffer would fail again at its end."""
    command = [sys.executable, "-c", "from tickwheel_operator.cli.main import main; main()", "lint", "--help"]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "Error: the output could not be written: No space left on device\n"


def test_others_objects_are_passed_over_and_a_wrong_version_of_ours_is_not(tickwheel: Call, write: Write) -> None:
    others = "apiVersion: apps/v1\nkind: Deployment\nspec: {anything: goes}\n---\nfoo: bar\n"
    result = tickwheel("lint", write("others.yaml", others))
    assert (result.exit_code, result.stdout) == (0, "")
    assert "there is no object of tickwheel.io" in result.stderr
    old = write("old.yaml", GOOD.replace("v1alpha1", "v1beta7"))
    assert "old.yaml:1: WorkerPool/shops: apiVersion: 'tickwheel.io/v1beta7'" in tickwheel("lint", old).stdout
    bare = write("bare.yaml", GOOD.replace("apiVersion: tickwheel.io/v1alpha1\n", ""))
    assert tickwheel("lint", bare).exit_code == 1


def test_a_list_as_kubectl_prints_it_is_what_it_lists(tickwheel: Call) -> None:
    listed = {
        "apiVersion": "v1",
        "kind": "List",
        "items": [json.loads(task({"cron": "@daily"})), json.loads(task({"cron": "x"}, "b"))],
    }
    result = tickwheel("lint", "-", stdin=json.dumps(listed, indent=1))
    assert result.exit_code == 1
    line = result.stdout.splitlines()[0]
    assert line.startswith("<stdin>:") and "ScheduledTask/b: spec.trigger.cron: " in line
    number = int(line.split(":")[1])
    assert '"cron": "x"' in json.dumps(listed, indent=1).splitlines()[number - 1]


def test_what_kubectl_writes_of_an_object_that_is_not_there_yet_is_no_fault(tickwheel: Call, write: Write) -> None:
    drafted = GOOD.replace("  name: shop-sync\n", "  name: shop-sync\n  creationTimestamp: null\n")
    assert tickwheel("lint", write("draft.yaml", drafted)).exit_code == 0
    assert tickwheel("next", "-f", "draft.yaml").exit_code == 0
    write("odd.yaml", drafted.replace("null", "yesterday"))
    for command in (("lint", "odd.yaml"), ("next", "-f", "odd.yaml")):
        result = tickwheel(*command)
        assert result.exit_code == 1
        assert "odd.yaml:11: ScheduledTask/shop-sync: metadata.creationTimestamp: 'yesterday'" in result.output


def test_json_is_a_list_of_faults_and_warnings(tickwheel: Call, write: Write) -> None:
    result = tickwheel("lint", write("task.yaml", GOOD.replace("MON-FRI", "1-5")), "-o", "json")
    assert result.exit_code == 0
    (finding,) = json.loads(result.stdout)
    assert finding["file"] == "task.yaml"
    assert finding["line"] == 14
    assert finding["object"] == "ScheduledTask/shop-sync"
    assert finding["path"] == "spec.trigger.cron"
    assert finding["warning"] is True
    faulty = tickwheel("lint", write("bad.yaml", GOOD.replace("MON-FRI", "XYZ")), "-o", "json")
    assert faulty.exit_code == 1
    assert json.loads(faulty.stdout)[0]["warning"] is False


def test_a_file_that_is_not_there_is_named(tickwheel: Call) -> None:
    result = tickwheel("lint", "absent.yaml")
    assert result.exit_code == 2
    assert "absent.yaml" in result.stderr


def test_the_examples_of_this_repository_have_no_fault(tickwheel: Call) -> None:
    result = tickwheel("lint", Path(__file__).parents[3] / "examples")
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("trigger", "path"),
    [
        ({"once": {"at": "9999-12-31T23:59:59-08:00"}}, "spec.trigger.once.at"),
        ({"once": {"at": "0001-01-01T00:00:00+08:00"}}, "spec.trigger.once.at"),
        ({"fixedRate": "1h", "anchor": "0001-01-01T00:00:00+08:00"}, "spec.trigger.anchor"),
        ({"cron": "@daily", "window": {"notBefore": "0001-01-01T00:00:00+08:00"}}, "spec.trigger.window.notBefore"),
        ({"cron": "@daily", "window": {"notAfter": "9999-12-31T23:59:59-08:00"}}, "spec.trigger.window.notAfter"),
        ({"dailyInterval": {"every": "15m", "from": "00:00", "to": "00:00:00"}}, "spec.trigger.dailyInterval"),
        ({"dailyInterval": {"every": "15m", "from": "24:00", "to": "00:00"}}, "spec.trigger.dailyInterval.to"),
    ],
)
def test_what_the_engine_cannot_express_is_a_fault_of_its_field(
    tickwheel: Call, write: Write, trigger: dict[str, Any], path: str
) -> None:
    result = tickwheel("lint", write("tasks.yaml", task(trigger)))
    assert result.exit_code == 1
    assert f" {path}: " in result.output, result.output


def test_a_delay_past_the_last_year_is_a_fault_of_its_field(tickwheel: Call, write: Write) -> None:
    metadata = {"creationTimestamp": "9999-12-31T23:59:59Z"}
    result = tickwheel("lint", write("tasks.yaml", task({"once": {"after": "1d"}}, metadata=metadata)))
    assert "spec.trigger.once.after: 1d after 9999-12-31T23:59:59Z is past the year 9999" in result.output


def test_a_key_that_yaml_takes_for_true_is_a_warning_with_its_place(tickwheel: Call, write: Write) -> None:
    write("t.yaml", GOOD.replace("spec:\n", "spec:\n  parameters:\n    on: 1\n"))
    result = tickwheel("lint", "t.yaml")
    assert result.exit_code == 0
    assert "warning: ScheduledTask/" in result.stderr
    assert "YAML reads the key on as 'true'; quote it" in result.stderr


def test_a_key_of_brackets_and_quotes_has_its_line(tickwheel: Call, write: Write) -> None:
    odd = """apiVersion: tickwheel.io/v1alpha1
kind: ScheduledTask
metadata: {name: odd}
spec:
  pool: p
  handler: h
  retry:
    "x']\\"": 1
    limit: no
"""
    write("t.yaml", odd)
    result = tickwheel("lint", "t.yaml")
    assert [line.split(": ")[0] for line in result.stdout.splitlines()] == ["t.yaml:9", "t.yaml:8"]


@pytest.mark.parametrize(
    ("trigger", "gap"),
    [
        ({"cron": "* * * * *", "jitter": "1m"}, "1m"),
        ({"cron": "0,5 9 * * *", "jitter": "10m"}, "5m"),
        ({"fixedRate": "1s", "jitter": "2s"}, "1s"),
    ],
)
def test_a_jitter_that_the_next_instant_cuts_is_a_warning(
    tickwheel: Call, write: Write, trigger: dict[str, Any], gap: str
) -> None:
    result = tickwheel("lint", write("task.yaml", task(trigger)))
    assert result.exit_code == 0
    assert f"spec.trigger.jitter: is not shorter than the {gap} between two instants" in result.stderr
    shorter = {**trigger, "jitter": "500ms"}
    assert "jitter" not in tickwheel("lint", write("shorter.yaml", task(shorter))).stderr
    once = {"once": {"at": "2099-01-01T00:00:00Z"}, "jitter": "1h"}
    assert "jitter" not in tickwheel("lint", write("once.yaml", task(once))).stderr


def test_a_clock_time_without_quotes_is_text_as_for_kubectl(tickwheel: Call, write: Write) -> None:
    text = GOOD.replace('cron: "0 9 * * MON-FRI"', "dailyInterval: {every: 15m, from: 22:00, to: 23:30}")
    assert "from: 22:00" in text
    result = tickwheel("lint", write("t.yaml", text))
    assert result.exit_code == 0, result.output


def test_a_fault_of_lint_itself_at_one_object_hides_no_other(
    tickwheel: Call, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(resource: Any) -> tuple[()]:
        if resource.metadata.name == "two":
            raise RuntimeError("unheeded")
        return ()

    monkeypatch.setattr("tickwheel_operator.cli.lint.unheeded", broken)
    bad = (task({"cron": "61 * * * *"}, "one"), task(None, "two"), task({"cron": "x"}, "six"))
    path = write("tasks.yaml", together(*bad))
    result = tickwheel("lint", path)
    assert result.exit_code == 1
    assert "RuntimeError('unheeded')" in result.output and "ScheduledTask/two" in result.output
    assert "ScheduledTask/one" in result.output and "ScheduledTask/six" in result.output
