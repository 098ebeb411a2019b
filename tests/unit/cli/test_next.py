"""`tickwheel next`: instants for scripts, and what a person should know beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.cli.manifest_texts import calendar, task, together

from tickwheel_operator.api import ScheduledTask, parse
from tickwheel_operator.api.calendar import Calendar
from tickwheel_operator.cli.main import main
from tickwheel_operator.engine.model.identity import jitter_ms
from tickwheel_operator.kinds.calendar import compile_calendar
from tickwheel_operator.kinds.compile_task import NeverFires, bind_calendars, compile_task

Call = Callable[..., Result]
Write = Callable[[str, str], Path]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FROM = ("--from", "2026-11-01T00:00:00Z")


def instants(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# --- an expression ---


def test_json_is_an_array_of_instants_in_utc_and_nothing_else(tickwheel: Call) -> None:
    cron = ("--cron", "0 9 * * MON-FRI", "--time-zone", "Asia/Shanghai")
    result = tickwheel("next", *cron, *FROM, "--count", 3, "-o", "json")
    assert instants(result) == ["2026-11-02T01:00:00Z", "2026-11-03T01:00:00Z", "2026-11-04T01:00:00Z"]
    assert result.stderr == ""


def test_yaml_is_a_list(tickwheel: Call) -> None:
    result = tickwheel("next", "--cron", "@daily", *FROM, "--count", 2, "-o", "yaml")
    assert yaml.safe_load(result.stdout.replace("Z'", "'")) == ["2026-11-02T00:00:00", "2026-11-03T00:00:00"]


def test_it_answers_strictly_after_from(tickwheel: Call) -> None:
    result = tickwheel("next", "--cron", "0 0 * * *", *FROM, "--count", 1, "-o", "json")
    assert instants(result) == ["2026-11-02T00:00:00Z"]


@pytest.mark.parametrize(
    ("zone", "since", "after"),
    [
        ("Europe/Berlin", "2026-03-29T02:30", "2026-03-29T01:00:01Z"),  # a gap
        ("Europe/Berlin", "2026-10-25T02:30", "2026-10-25T00:30:01Z"),  # twice
        ("America/Santiago", "2025-09-07", "2025-09-07T04:00:01Z"),
        ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00:01Z"),  # a whole day
    ],
)
def test_a_local_time_is_the_instant_that_a_trigger_makes_of_it(
    tickwheel: Call, zone: str, since: str, after: str
) -> None:
    call = ("next", "--cron", "* * * * * *", "--time-zone", zone, "--from", since, "--count", 1, "-o", "json")
    assert instants(tickwheel(*call)) == [after]


@pytest.mark.parametrize(
    "since", ["2026-10-26T02:29", "2026-10-26 02:29:00", "2026-10-26T01:29:00Z", "2026-10-26T02:29:00+01:00"]
)
def test_from_may_be_local_and_is_then_read_in_the_zone(tickwheel: Call, since: str) -> None:
    cron = ("--cron", "30 2 * * *", "--time-zone", "Europe/Berlin")
    result = tickwheel("next", *cron, "--from", since, "--count", 1, "-o", "json")
    assert instants(result) == ["2026-10-26T01:30:00Z"]


def test_the_table_shows_both_clocks_within_80_columns(tickwheel: Call) -> None:
    cron = ("--cron", "*/30 2 * * *", "--time-zone", "Europe/Berlin")
    result = tickwheel("next", *cron, "--from", "2026-10-24T12:00:00Z", "--count", 4)
    lines = result.output.splitlines()
    assert lines[0] == "cron */30 2 * * * (Europe/Berlin)"
    assert lines[1].split() == ["LOCAL", "(Europe/Berlin)", "UTC", "FROM", "NOW"]
    assert [line[:51] for line in lines[2:]] == [
        "Sun 2026-10-25 02:00:00 CEST  2026-10-25T00:00:00Z ",
        "Sun 2026-10-25 02:30:00 CEST  2026-10-25T00:30:00Z ",
        "Sun 2026-10-25 02:00:00 CET   2026-10-25T01:00:00Z ",
        "Sun 2026-10-25 02:30:00 CET   2026-10-25T01:30:00Z ",
    ]
    assert max(map(len, lines)) <= 80


def test_a_narrow_terminal_cuts_no_instant_off(tickwheel: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    cron = ("--cron", "@daily", "--time-zone", "America/Argentina/ComodRivadavia")
    result = tickwheel("next", *cron, "--from", "2026-10-24T12:00:00Z", "--count", 1)
    instant = result.output.splitlines()[-1]
    assert instant.startswith("Sun 2026-10-25 00:00:00 -03 ")
    assert " 2026-10-25T03:00:00Z " in instant
    assert "…" not in instant


def test_an_expression_that_never_fires_has_no_instant(tickwheel: Call) -> None:
    assert instants(tickwheel("next", "--cron", "0 0 30 2 *", "-o", "json")) == []
    assert "can never fire" in tickwheel("next", "--cron", "0 0 30 2 *").output


def test_an_h_without_a_task_is_said_to_depend_on_one(tickwheel: Call) -> None:
    result = tickwheel("next", "--cron", "H 3 * * THU", "--count", 1, "-o", "json")
    assert len(instants(result)) == 1
    assert "H stands for another value in each task" in result.stderr
    assert tickwheel("next", "--cron", "0 3 * MAR THU", "-o", "json").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--cron", "61 * * * *"), ("--cron", "minute", "0-59")),
        (("--cron", "0 9 * * *", "--time-zone", "europe/berlin"), ("--time-zone", "Europe/Berlin")),
        (("--cron", "0 9 * * *", "--time-zone", "Europe/Berln"), ("--time-zone", "did you mean Europe/Berlin")),
        (("--cron", "0 9 * * *", "--time-zone", "localtime"), ("--time-zone", "'localtime' is not a time zone")),
        (("--cron", "0 9 * * *", "--from", "tomorrow"), ("--from", "tomorrow", "2026-11-01T09:00:00Z")),
        (("--cron", "0 9 * * *", "--from", "2026-02-30"), ("--from", "2026-02-30")),
        (("--cron", "0 9 * * *", "--count", "0"), ("--count", "1<=x<=1000")),
        (("--cron", "0 9 * * *", "shop-sync"), ("--cron", "TASK")),
        ((), ("TASK", "--file", "--cron")),
    ],
)  # fmt: skip
def test_a_wrong_call_names_the_option_and_what_is_allowed(
    tickwheel: Call, arguments: tuple[str, ...], named: tuple[str, ...]
) -> None:
    result = tickwheel("next", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    for word in named:
        assert word in result.stderr


# --- files ---


def test_a_task_of_a_file_needs_no_cluster_and_its_calendars_stand_beside_it(tickwheel: Call, write: Write) -> None:
    daily = {"cron": "0 9 * * *", "calendars": [{"name": "closed"}], "window": {"notAfter": "2026-11-06T00:00:00Z"}}
    file = write("tasks.yaml", together(calendar("closed", "2026-11-02/2026-11-03"), task(daily)))
    result = tickwheel("next", "--file", file, *FROM, "-o", "json")
    assert instants(result) == ["2026-11-01T09:00:00Z", "2026-11-04T09:00:00Z", "2026-11-05T09:00:00Z"]


def test_standard_input_is_a_file(tickwheel: Call) -> None:
    result = tickwheel("next", "-f", "-", *FROM, "--count", 1, "-o", "json", stdin=task({"cron": "@hourly"}))
    assert instants(result) == ["2026-11-01T01:00:00Z"]


def test_of_several_tasks_each_has_its_array_and_one_can_be_named(tickwheel: Call, write: Write) -> None:
    write("jobs/a.yaml", task({"cron": "@hourly"}, "a"))
    write("jobs/deep/b.yml", task({"cron": "@daily"}, "b", metadata={"namespace": "shops"}))
    write("jobs/.hidden/c.yaml", "not: [yaml")
    found = instants(tickwheel("next", "--file", "jobs", *FROM, "--count", 1, "-o", "json"))
    assert found == {"default/a": ["2026-11-01T01:00:00Z"], "shops/b": ["2026-11-02T00:00:00Z"]}
    assert instants(tickwheel("next", "b", "--file", "jobs", *FROM, "--count", 1, "-o", "json")) == found["shops/b"]
    missing = tickwheel("next", "c", "--file", "jobs")
    assert missing.exit_code == 1
    assert "there is no ScheduledTask c in jobs" in missing.stderr


def test_what_follows_runs_has_no_instant_ahead_and_says_why(tickwheel: Call, write: Write) -> None:
    for trigger, why in (
        ({"fixedDelay": "30s"}, "depend on when runs end"),
        ({"completion": {"task": "other"}}, "follows the runs of other"),
        (None, "no trigger"),
    ):
        file = write("task.yaml", task(trigger))
        assert instants(tickwheel("next", "-f", file, "-o", "json")) == []
        assert why in tickwheel("next", "-f", file).output


@pytest.mark.parametrize(
    ("trigger", "schedule"),
    [
        ({"fixedDelay": "30s"}, "30s after the end of the last run"),
        ({"completion": {"task": "other"}}, "after a run of other succeeded"),
    ],
)
def test_what_follows_runs_is_shown_with_window_calendars_and_jitter(
    tickwheel: Call, write: Write, trigger: dict[str, Any], schedule: str
) -> None:
    limits = {
        "window": {"notBefore": "2026-11-01T00:00:00Z", "notAfter": "2026-11-30T00:00:00Z"}, "jitter": "5s",
        "calendars": [{"name": "closed"}],
    }  # fmt: skip
    created = {"creationTimestamp": "2026-11-01T00:00:00Z"}
    wanted = task({**trigger, **limits}, metadata=created)
    file = write("task.yaml", together(wanted, calendar("closed", "2026-11-02")))
    lines = tickwheel("next", "-f", file, *FROM).output.splitlines()
    window = "not before 2026-11-01T00:00:00Z; not after 2026-11-30T00:00:00Z; except on closed"
    assert lines[0] == f"default/shop-sync: {schedule}; {window}"
    assert "known ahead" in lines[1]
    assert lines[2:] == ["jitter: each run starts up to 5s after its instant"]
    over = tickwheel("next", "-f", file, "--from", "2026-12-01T00:00:00Z").output.splitlines()
    assert over[1:] == ["it never fires again after that time"]


@pytest.mark.parametrize(
    "trigger",
    [
        {"cron": "0 0 31 4 *"},
        {"cron": "0 9 * * *", "window": {"notAfter": "2020-01-01T00:00:00Z"}},
        {"cron": "0 9 * * *", "calendars": [{"name": "closed", "rule": "Include"}]},
    ],
)
def test_a_task_that_can_never_fire_has_no_instant_and_the_reason_is_told(
    tickwheel: Call, write: Write, trigger: dict[str, Any]
) -> None:
    file = write("tasks.yaml", together(calendar("closed", "2001-01-01"), task(trigger)))
    assert instants(tickwheel("next", "-f", file, "-o", "json")) == []
    told = tickwheel("next", "-f", file)
    assert told.exit_code == 0
    assert "spec.trigger." in told.output


def test_a_calendar_that_is_nowhere_is_named(tickwheel: Call, write: Write) -> None:
    file = write("task.yaml", task({"cron": "@daily", "calendars": [{"name": "closed"}]}))
    result = tickwheel("next", "-f", file, "-o", "json")
    assert result.exit_code == 1
    assert "task.yaml:" in result.stderr
    assert "ScheduledTask/shop-sync: spec.trigger.calendars[0].name: there is no Calendar closed" in result.stderr
    assert result.stderr.endswith("create or mend it, or give its file with -f too\n")


def test_one_fault_hides_no_other_task(tickwheel: Call, write: Write) -> None:
    write("set/closed.yaml", task({"cron": "@daily", "calendars": [{"name": "closed"}]}, "closed"))
    write("set/broken.yaml", "not: [yaml")
    write("set/good.yaml", task({"cron": "@daily"}, "good"))
    result = tickwheel("next", "-f", "set", *FROM, "--count", 1, "-o", "json")
    assert json.loads(result.stdout) == {"default/good": ["2026-11-02T00:00:00Z"]}
    assert result.exit_code == 1
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["set/broken.yaml", "set/closed.yaml"]
    assert "default/good: cron @daily" in tickwheel("next", "-f", "set").output


def test_a_fault_of_the_file_is_told_as_lint_does(tickwheel: Call, write: Write) -> None:
    file = write("task.yaml", task({"cron": "@daily", "timeZone": "Mars/Base"}))
    result = tickwheel("next", "-f", file, "-o", "json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "ScheduledTask/shop-sync: spec.trigger.timeZone: 'Mars/Base'" in result.stderr


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"spec": {', '"spec": 1, "was": {', "was"),
        ('"trigger": {', '"trigger": "daily", "was": {', "spec.trigger"),
        ('"cron": "@daily"', '"cron": 1.5', "spec.trigger.cron"),
        ('"cron": "@daily"', '"cron": {}', "spec.trigger.cron"),
        ('"metadata": {', '"metadata": [], "was": {', "was"),
    ],
)
def test_a_manifest_of_another_shape_is_a_fault_and_no_traceback(
    tickwheel: Call, old: str, new: str, named: str
) -> None:
    result = tickwheel("next", "-f", "-", "-o", "json", stdin=task({"cron": "@daily"}).replace(old, new))
    assert (result.exit_code, result.stdout) == (1, "")
    assert f": {named}: " in result.stderr


def test_what_a_file_cannot_know_is_assumed_and_said(tickwheel: Call, write: Write) -> None:
    file = write("task.yaml", task({"fixedRate": "90s"}))
    result = tickwheel("next", "-f", file, *FROM, "--count", 2, "-o", "json")
    assert instants(result) == ["2026-11-01T00:01:30Z", "2026-11-01T00:03:00Z"]
    assert "counts from the object's creation, here taken as 2026-11-01T00:00:00Z" in result.stderr
    result = tickwheel("next", "-f", file, "--from", "2026-11-01T00:00:00.5Z", "--count", 1, "-o", "json")
    assert instants(result) == ["2026-11-01T00:01:30Z"], "API servers know whole seconds"
    stored = write("stored.yaml", task({"fixedRate": "90s"}, metadata={"creationTimestamp": "2026-10-31T23:59:59Z"}))
    result = tickwheel("next", "-f", stored, *FROM, "--count", 1, "-o", "json")
    assert instants(result) == ["2026-11-01T00:01:29Z"]
    assert result.stderr == ""


def test_a_suspended_task_is_said_to_be(tickwheel: Call, write: Write) -> None:
    file = write("task.yaml", task({"cron": "@daily"}, suspend=True))
    assert "suspended: nothing fires" in tickwheel("next", "-f", file).output


def test_jitter_is_the_engines_where_the_uid_is_known(tickwheel: Call, write: Write) -> None:
    file = write("task.yaml", task({"cron": "@daily", "jitter": "10s"}))
    assert "up to 10s after its instant; the object's uid decides" in tickwheel("next", "-f", file).output
    stored = write("stored.yaml", task({"cron": "@daily", "jitter": "10s"}, metadata={"uid": "u-1"}))
    result = tickwheel("next", "-f", stored, *FROM, "--count", 1)
    at_ms = int(datetime(2026, 11, 2, tzinfo=UTC).timestamp() * 1000)
    assert result.output.splitlines()[-1].endswith(f"+{jitter_ms('u-1', at_ms, 10_000) / 1000:.3f}s")


def test_a_jitter_that_the_next_instant_cuts_is_said_to_be_cut(tickwheel: Call, write: Write) -> None:
    every_minute = task({"cron": "* * * * *", "jitter": "10m"}, metadata={"uid": "u-1"})
    lines = tickwheel("next", "-f", write("task.yaml", every_minute), *FROM, "--count", 50).output.splitlines()
    assert lines[1] == "jitter: each run starts up to 10m after its instant, but before the next one, as STARTS says"
    starts = [float(line.rpartition("+")[2].strip().removesuffix("s")) for line in lines[-50:]]
    assert 0 <= min(starts) < 15
    assert 45 < max(starts) < 60


def test_the_zone_that_times_are_shown_in_can_be_another(tickwheel: Call, write: Write) -> None:
    file = write("task.yaml", task({"cron": "0 9 * * *", "timeZone": "Asia/Shanghai"}))
    result = tickwheel("next", "-f", file, "--time-zone", "Asia/Tokyo", *FROM, "--count", 1)
    assert "Sun 2026-11-01 10:00:00 JST  2026-11-01T01:00:00Z" in result.output


# --- one code path ---

_ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Shanghai"])
_CRONS = ["*/20 1-3 * * *", "H H * * *", "15 30 2 L * ?", "0 0 1W * 5#2", "@weekly"]
_SOURCES = st.one_of(
    st.builds(lambda cron: {"cron": cron}, st.sampled_from(_CRONS)),
    st.builds(lambda ms: {"fixedRate": f"{ms}ms", "anchor": "2026-01-01T00:00:00Z"}, st.integers(10, 10**8)),
    st.builds(
        lambda every, since, to: {"dailyInterval": {"every": f"{every}m", "from": f"{since:02}:30", "to": f"{to}:00"}},
        st.integers(1, 600), st.integers(0, 23), st.integers(10, 23),
    ),
)  # fmt: skip
_RULES = st.lists(st.sampled_from(["Include", "Exclude"]), max_size=1)
_SECONDS = st.integers(1_767_312_000, 1_900_000_000)


@settings(max_examples=40, deadline=None)
@given(source=_SOURCES, zone=_ZONES, rules=_RULES, count=st.integers(1, 20), since=_SECONDS)
def test_next_and_the_operator_agree_to_the_instant(
    source: dict[str, Any], zone: str, rules: list[str], count: int, since: int
) -> None:
    created = {"creationTimestamp": "2026-01-01T00:00:00Z", "namespace": "shops"}
    closed = calendar("closed", "2026-03-20/2026-11-10", weekdays=["Sat", "Sun"], timeZone=zone)
    uses = [{"name": "closed", "rule": rule} for rule in rules]
    wanted = task({**source, "timeZone": zone, "calendars": uses}, metadata=created)
    moment = datetime.fromtimestamp(since, UTC)
    arguments = ["next", "-n", "shops", "-f", "-", "--from", moment.isoformat(), "--count", str(count), "-o", "json"]
    result = CliRunner().invoke(main, arguments, input=together(wanted, closed))
    assert result.exit_code == 0, result.output
    expected = _by_the_operator(wanted, closed, moment, count)
    shown = [(datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1) for text in json.loads(result.stdout)]
    assert shown == expected


def _by_the_operator(wanted: str, closed: str, moment: datetime, count: int) -> list[int]:
    resource, dates = parse(json.loads(wanted)), parse(json.loads(closed))
    assert isinstance(resource, ScheduledTask) and isinstance(dates, Calendar)
    try:
        trigger = bind_calendars(compile_task(resource), lambda _: compile_calendar(dates)).trigger
    except NeverFires:
        return []
    assert trigger is not None
    found: list[int] = []
    after = (moment - _EPOCH) // timedelta(milliseconds=1)
    while len(found) < count and (instant := trigger.next_after(after)) is not None:
        found.append(instant)
        after = instant
    return found


# --- the ends of what can be written ---


def test_a_rate_of_years_ends_with_the_last_year_that_can_be_written(tickwheel: Call, write: Write) -> None:
    path = write("tasks.yaml", task({"fixedRate": "3650d", "anchor": "2026-01-01T00:00:00Z"}))
    found = instants(tickwheel("next", "-f", path, *FROM, "--count", 1_000, "-o", "json"))
    assert len(found) == 797 and found[-1].startswith("999")
    assert tickwheel("next", "-f", path, *FROM, "--count", 1_000, "--time-zone", "Asia/Shanghai").exit_code == 0


@pytest.mark.parametrize("since", ["9999-12-31T23:59:59-08:00", "0001-01-01T00:00:00+08:00", "9999-12-31T23:59"])
def test_a_from_that_utc_cannot_write_is_told_in_words(tickwheel: Call, since: str) -> None:
    result = tickwheel("next", "--cron", "@daily", "--time-zone", "America/New_York", "--from", since)
    assert (result.exit_code, "outside of the years 1 to 9999 in UTC" in result.output) == (2, True)


def test_the_last_instant_is_shown_by_the_clock_of_utc_where_a_zone_has_no_year_for_it(
    tickwheel: Call, write: Write
) -> None:
    path = write("tasks.yaml", task({"once": {"at": "9999-12-31T23:00:00Z"}}))
    result = tickwheel("next", "-f", path, *FROM, "--time-zone", "Asia/Shanghai")
    assert "Fri 9999-12-31 23:00:00 UTC" in result.output


def test_a_fault_of_the_command_itself_at_one_task_hides_no_other(
    tickwheel: Call, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compile_task

    def broken(resource: ScheduledTask) -> Any:
        if resource.metadata.name == "two":
            raise RuntimeError("compile")
        return whole(resource)

    monkeypatch.setattr("tickwheel_operator.cli.schedules.compile_task", broken)
    path = write("tasks.yaml", together(task({"cron": "@daily"}, "one"), task({"cron": "@daily"}, "two")))
    result = tickwheel("next", "-f", path, *FROM, "--count", 1, "-o", "json")
    assert result.exit_code == 1
    assert "2026-11-02T00:00:00Z" in result.stdout
    assert "RuntimeError('compile')" in result.stderr
