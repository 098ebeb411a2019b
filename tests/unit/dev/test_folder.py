"""The folder as an API server: identities, generations, last valid versions, and what an editor does to files."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.dev.driver import manifests

from tickwheel_operator.dev.errors import DevError
from tickwheel_operator.dev.folder import MOST_WORKERS, Folder
from tickwheel_operator.dev.lock import folder_lock
from tickwheel_operator.dev.watched import Watched, listed
from tickwheel_operator.dev.workers import handler_files
from tickwheel_operator.engine.messages import PoolApplied, TaskApplied, TaskRemoved

NOW = 1_800_000_000_000
HELLO = manifests(("hello", "fixedRate: 1s", "tick"))


def folder_of(directory: Path) -> Folder:
    return Folder(directory, directory / "objects.json")


def names(folder: Folder) -> set[str]:
    return {spec.name for spec in folder.tasks.values()}


def test_an_object_keeps_its_uid_and_creation_over_restarts_and_its_generation_grows_with_its_spec(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.yaml").write_text(HELLO)
    folder = folder_of(tmp_path)
    commands = folder.read(NOW)
    assert [type(command) for command in commands] == [PoolApplied, TaskApplied]
    [first] = folder.tasks.values()
    assert (first.generation, first.created_ms, first.namespace) == (1, NOW, "default")

    again = folder_of(tmp_path)
    again.read(NOW + 5_000)
    assert list(again.tasks.values()) == [first]

    (tmp_path / "a.yaml").write_text(HELLO.replace("{name: hello}", "{name: hello, labels: {a: b}}"))
    again.read(NOW + 6_000)
    assert [spec.generation for spec in again.tasks.values()] == [1]
    (tmp_path / "a.yaml").write_text(HELLO.replace("1s", "2s"))
    again.read(NOW + 7_000)
    assert [(spec.uid, spec.generation, spec.created_ms) for spec in again.tasks.values()] == [(first.uid, 2, NOW)]


def test_an_object_that_was_taken_out_and_comes_back_is_another_one(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(HELLO)
    folder = folder_of(tmp_path)
    folder.read(NOW)
    [uid] = folder.tasks
    (tmp_path / "a.yaml").unlink()
    assert TaskRemoved(uid=uid) in folder.read(NOW + 1)
    (tmp_path / "a.yaml").write_text(HELLO)
    folder.read(NOW + 2)
    [spec] = folder.tasks.values()
    assert spec.uid != uid
    assert spec.created_ms == NOW + 2


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        ("kind: [\n", "a.yaml: line 2, column 1: this is not YAML"),
        (HELLO.replace("handler: tick", "handler: 'no name'"), "a.yaml: ScheduledTask/hello: spec.handler"),
        (HELLO.replace("{name: hello}", "[hello]"), "a.yaml: ScheduledTask/None: metadata"),
        (HELLO.replace("v1alpha1\nkind: ScheduledTask", "v9\nkind: ScheduledTask"), "apiVersion: 'tickwheel.io/v9'"),
        (HELLO.replace("replicas: 1", "replicas: -1"), "a.yaml: WorkerPool/local: spec.replicas"),
    ],
)
def test_a_fault_keeps_the_last_valid_version_over_a_restart_too(tmp_path: Path, broken: str, fault: str) -> None:
    (tmp_path / "a.yaml").write_text(HELLO)
    folder = folder_of(tmp_path)
    folder.read(NOW)
    before, pools = dict(folder.tasks), dict(folder.pools)
    (tmp_path / "a.yaml").write_text(broken)
    assert [command for command in folder.read(NOW + 1) if not isinstance(command, PoolApplied)] == []
    again = folder_of(tmp_path)
    again.read(NOW + 2)
    for one in (folder, again):
        assert one.tasks == before
        assert one.pools == pools
        assert fault in str(one.faults[0])


def test_one_name_twice_is_a_fault_that_names_both_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(HELLO)
    (tmp_path / "b.yaml").write_text(manifests(("hello", "fixedRate: 9s", "tick")).partition("---")[2])
    folder = folder_of(tmp_path)
    folder.read(NOW)
    assert [str(fault) for fault in folder.faults] == [
        "b.yaml: ScheduledTask/hello: metadata.name: ScheduledTask/hello stands twice: a.yaml has it too; "
        "rename or remove one of them"
    ]
    assert [spec.trigger.period_ms for spec in folder.tasks.values()] == [1000]  # type: ignore[union-attr]


def test_other_objects_are_passed_over_and_lists_are_opened(tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n")
    (tmp_path / "compose.yaml").write_text("services: {web: {image: nginx}}\n")
    (tmp_path / "patch.yaml").write_text("- {op: remove, path: /spec}\n")
    task = "apiVersion: tickwheel.io/v1alpha1, kind: ScheduledTask"
    (tmp_path / "list.yaml").write_text(
        f"apiVersion: v1\nkind: List\nitems:\n- {{{task}, metadata: {{name: listed}}, spec: {{pool: p, handler: h}}}}\n"
    )
    folder = folder_of(tmp_path)
    folder.read(NOW)
    assert folder.faults == []
    assert names(folder) == {"listed"}


def test_what_dev_mode_cannot_run_is_said_and_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "apiVersion: tickwheel.io/v1alpha1\nkind: TaskRun\nmetadata: {name: once}\nspec: {task: hello}\n"
    )
    folder = folder_of(tmp_path)
    folder.read(NOW)
    told = str(folder.faults[0])
    assert told.startswith("a.yaml: TaskRun/once: kind: dev mode runs ScheduledTask, WorkerPool")
    assert told.endswith("TaskRun needs a cluster")


CALENDAR = "apiVersion: tickwheel.io/v1alpha1\nkind: Calendar\nmetadata: {name: holidays}\nspec: {dates: [%s]}\n"
OCTOBER = 1_790_812_800_000
DAY_MS = 86_400_000


def first_day(folder: Folder) -> int:
    """The day of October 2026 on which the only task fires first."""
    [spec] = folder.tasks.values()
    assert spec.trigger is not None
    instant_ms = spec.trigger.next_after(OCTOBER - 1)
    assert instant_ms is not None
    return (instant_ms - OCTOBER) // DAY_MS + 1


def test_a_task_whose_calendar_is_missing_waits_for_it_and_is_told_when_it_changes(tmp_path: Path) -> None:
    trigger = 'cron: "0 4 * * *", calendars: [{name: holidays}]'
    (tmp_path / "a.yaml").write_text(manifests(("hello", trigger, "tick")))
    folder = folder_of(tmp_path)
    folder.read(NOW)
    assert folder.tasks == {}
    [fault] = folder.faults
    assert str(fault).startswith("a.yaml: ScheduledTask/hello: spec.trigger.calendars[0].name: there is no Calendar")
    [command] = [command for command in folder.snapshot() if not isinstance(command, PoolApplied)]
    assert isinstance(command, TaskRemoved) and not command.forget, "what is known of it is kept"

    (tmp_path / "c.yaml").write_text(CALENDAR % '"2026-10-01"')
    assert [type(command) for command in folder.read(NOW + 1)] == [TaskApplied]
    assert (first_day(folder), folder.faults) == (2, [])
    (tmp_path / "c.yaml").write_text(CALENDAR % '"2026-10-01/2026-10-03"')
    assert [type(command) for command in folder.read(NOW + 2)] == [TaskApplied]
    assert first_day(folder) == 4
    (tmp_path / "c.yaml").write_text(CALENDAR % "no date")
    assert folder.read(NOW + 3) == []
    assert "c.yaml: Calendar/holidays: spec.dates" in str(folder.faults[0])
    (tmp_path / "c.yaml").unlink()
    [uid] = folder.tasks
    assert folder.read(NOW + 4) == [TaskRemoved(uid=uid, forget=False)]


def test_a_circle_of_tasks_is_told_of_each_of_them(tmp_path: Path) -> None:
    after = "completion: {task: %s}"
    (tmp_path / "a.yaml").write_text(manifests(("one", after % "two", "tick"), ("two", after % "one", "tick")))
    folder = folder_of(tmp_path)
    folder.read(NOW)
    assert folder.tasks == {}
    assert ["one -> two -> one" in str(folder.faults[0]), "two -> one -> two" in str(folder.faults[1])] == [True, True]


def test_a_pool_of_many_replicas_gets_few_workers_and_a_missing_one_gets_one(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        manifests(("hello", "fixedRate: 1s", "tick"), replicas=400)
        + manifests(("other", "fixedRate: 1s", "tick")).partition("---")[2].replace("pool: local", "pool: absent")
        .join(["---", ""])
    )  # fmt: skip
    folder = folder_of(tmp_path)
    folder.read(NOW)
    assert folder.faults == []
    assert folder.pools["default", "local"].replicas == MOST_WORKERS
    assert folder.pools["default", "absent"].replicas == 1
    assert folder.remarks == [
        f"pool local: {MOST_WORKERS} workers run here, not its 400 replicas",
        "pool absent: no WorkerPool of that name here, so it gets one worker",
    ]


def test_a_damaged_memory_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "objects.json").write_text("{")
    with pytest.raises(DevError, match=r"objects\.json cannot be read: .*delete the folder"):
        folder_of(tmp_path)


def test_a_change_counts_when_two_looks_saw_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("1")
    watched = Watched(lambda: listed(tmp_path, (".yaml",)))
    assert watched.take() == [path]
    assert not watched.changed()
    path.unlink()
    assert not watched.changed(), "an editor may be about to write it anew"
    path.write_text("22")
    assert not watched.changed()
    assert watched.changed()
    assert watched.changed(), "until it is taken"
    watched.take()
    assert not watched.changed()


def test_what_editors_and_tests_leave_beside_is_no_handler_file(tmp_path: Path) -> None:
    for name in ("handlers.py", "test_handlers.py", "conftest.py", "__init__.py", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / ".#handlers.py").symlink_to("nobody@nowhere.1234")
    assert handler_files(tmp_path) == [tmp_path / "handlers.py"]


def test_the_lock_is_free_again_when_its_holder_has_left(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    refused = pytest.raises(DevError, match=r"another `tickwheel dev`, process \d+;")
    with folder_lock(lock, tmp_path), refused, folder_lock(lock, tmp_path):
        pass
    with folder_lock(lock, tmp_path):
        pass
