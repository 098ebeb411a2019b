"""`tickwheel ledger status|verify`, on a folder of dev mode and on a cluster that is not there."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from tickwheel_operator.cli.main import main
from tickwheel_operator.clock import SystemClock
from tickwheel_operator.ledger.codec import encode_facts
from tickwheel_operator.ledger.facts import Clock, TaskForgotten
from tickwheel_operator.ledger.log import Ledger
from tickwheel_operator.ledger.sqlite import SqliteSegmentStore


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["ledger", *arguments], env={"KUBECONFIG": ""})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose ledger has one epoch and three segments of facts."""

    async def write() -> None:
        store = SqliteSegmentStore(tmp_path / ".tickwheel" / "ledger.sqlite")
        nonces = map(str, itertools.count())
        ledger = Ledger(store, partition=0, leader="dev-1", clock=SystemClock(), nonces=lambda: next(nonces))
        await ledger.open(0)
        for at_ms in (1, 2, 3):
            await ledger.append([Clock(at_ms)])
        await store.close()

    asyncio.run(write())
    return tmp_path


def change(folder: Path, statement: str) -> None:
    database = sqlite3.connect(folder / ".tickwheel" / "ledger.sqlite")
    with database:
        database.execute(statement)
    database.close()


def test_status_tells_a_person_what_is_there(folder: Path) -> None:
    result = run("status", "--dev", str(folder))
    assert result.exit_code == 0
    assert "1 Epoch, 3 Facts, 0 Checkpoint" in result.output
    assert "1 since " in result.output
    assert "by dev-1" in result.output


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_status_is_there_for_scripts_too(folder: Path, form: str, read: object) -> None:
    result = run("status", "--dev", str(folder), "-o", form)
    assert result.exit_code == 0
    found = read(result.output)  # type: ignore[operator]
    assert found["segments"] == {"Epoch": 1, "Facts": 3, "Checkpoint": 0}
    assert found["last_sequence"] == 4
    assert found["epochs"][0]["leader"] == "dev-1"


def test_verify_of_a_whole_log_says_so_and_exits_0(folder: Path) -> None:
    result = run("verify", "--dev", str(folder))
    assert result.exit_code == 0
    assert "is whole" in result.output
    assert json.loads(run("verify", "--dev", str(folder), "-o", "json").output) == []


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("delete from segments where sequence = 3", "p0-000000000003"),
        ("update segments set data = x'00112233' where sequence = 2", "p0-000000000002"),
        ("update segments set epoch = 7 where sequence = 4", "p0-000000000004"),
        ("update segments set epoch = 'seven' where sequence = 4", "p0-000000000004"),
        ("update segments set kind = 'Fact' where sequence = 4", "p0-000000000004"),
        ("update segments set kind = cast(x'ff46' as text) where sequence = 4", "p0-000000000004"),
        ("update segments set data = 'text' where sequence = 4", "p0-000000000004"),
    ],
)
def test_verify_names_the_damaged_segment_and_exits_1(folder: Path, damage: str, named: str) -> None:
    change(folder, damage)
    result = run("verify", "--dev", str(folder))
    assert result.exit_code == 1
    assert "Error: " in result.output
    assert named in result.output
    structured = run("verify", "--dev", str(folder), "-o", "json")
    assert structured.exit_code == 1
    assert json.loads(structured.output)[0]["severity"] == "Error"


def test_verify_finds_facts_that_can_be_decoded_and_do_not_fit(folder: Path) -> None:
    change(folder, f"update segments set data = x'{encode_facts([TaskForgotten(7)]).hex()}' where sequence = 3")
    result = run("verify", "--dev", str(folder))
    assert result.exit_code == 1
    assert "p0-000000000003" in result.output
    assert "do not fit what the log says before them (KeyError: 7)" in result.output


def test_a_folder_that_was_never_run_has_no_ledger_and_gets_none(tmp_path: Path) -> None:
    for command in ("status", "verify"):
        result = run(command, "--dev", str(tmp_path))
        assert result.exit_code == 1
        assert "has no ledger yet" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = run("status", "--kubeconfig", str(tmp_path / "absent"))
    assert result.exit_code == 1
    assert "absent" in result.output
    assert "--kubeconfig" in result.output
    assert isinstance(result.exception, SystemExit)


def test_an_api_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "me", "user": {}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    result = run("status", "--kubeconfig", str(tmp_path / "config"), "-n", "ops")
    assert result.exit_code == 1
    assert "127.0.0.1:9" in result.output
    assert isinstance(result.exception, SystemExit)
    unknown = run("status", "--kubeconfig", str(tmp_path / "config"), "--context", "elsewhere")
    assert unknown.exit_code == 1
    assert "elsewhere" in unknown.output
