"""Tests of the benchmark's own parts; `pytest benchmarks/timers`. None of them says how fast anything is."""

from __future__ import annotations

import io
import math
import sys
from typing import Any

import pytest
from benchmarks.timers import run
from benchmarks.timers.case_process import CaseFailed, figures_of
from benchmarks.timers.distribution import Spread
from benchmarks.timers.report import latency_table, load_table
from rich.console import Console
from rich.table import Table


def _text(table: Table) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def _row(table: Table, title: str) -> list[str]:
    line = next(line for line in _text(table).splitlines() if title in line)
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_a_percentile_was_really_measured() -> None:
    assert Spread.of(list(range(1, 101))) == Spread(count=100, p50_ms=50, p99_ms=99, max_ms=100)
    assert Spread.of([7.0]).p99_ms == 7.0
    assert math.isnan(Spread.of([]).p50_ms)


def test_the_figures_are_the_last_json_that_a_case_printed() -> None:
    talk = "print('warming up'); print('{\"a\": 1}'); print('{\"a\": 2}'); print('bye')"
    assert figures_of([sys.executable, "-c", talk], what="talk", timeout_s=30) == {"a": 2}


def test_a_case_that_fails_is_told_with_its_last_words() -> None:
    with pytest.raises(CaseFailed, match=r"(?s)breaking failed.*no such wheel"):
        figures_of([sys.executable, "-c", "raise SystemExit('no such wheel')"], what="breaking", timeout_s=30)


def test_a_case_that_hangs_is_ended() -> None:
    with pytest.raises(CaseFailed, match="sleeping took more than"):
        figures_of([sys.executable, "-c", "import time; time.sleep(60)"], what="sleeping", timeout_s=0.3)


def test_a_case_without_figures_has_failed() -> None:
    with pytest.raises(CaseFailed, match="printed no figures"):
        figures_of([sys.executable, "-c", "print('hello')"], what="greeting", timeout_s=30)


def test_the_ratio_is_the_peer_divided_by_tickwheel() -> None:
    # given a peer that needs three times as long, and one that had fewer tasks
    results: dict[str, dict[str, Any]] = {
        "engine": {"burst": {"tasks": 100, "all_started_ms": 50.0, "dropped": 0}},
        "quartz-ram": {"burst": {"tasks": 100, "all_started_ms": 150.0, "dropped": 0}},
        "quartz-jdbc": {"burst": {"tasks": 10, "all_started_ms": 900.0, "dropped": 0}},
    }
    titles = {"engine": "ours", "quartz-ram": "memory", "quartz-jdbc": "database"}
    # then unequal loads have no ratio, and say so
    assert _row(load_table(results, titles, 100), "all started") == [
        "100 at one instant: all started, ms", "50", "500", "150", "3.0", "900 of 10", "",
    ]  # fmt: skip


def test_a_run_that_begins_before_its_instant_is_shown() -> None:
    modes = {"plain": {"100": {"p50_ms": 4.0, "early": 3}}, "early": {"100": {"p50_ms": 0.5, "early": 0}}}
    ordered = {name: modes[name] for name in ("early", "plain")}
    assert _row(latency_table(ordered), "p50") == ["100/s: p50 ms", "0.50", "4", "0.5", "8.0"]
    assert _row(latency_table(ordered), "before its instant")[1:3] == ["0", "3"]


def test_the_median_of_the_rounds_counts() -> None:
    rounds = [{"p99_ms": 9.0, "store": "ram"}, {"p99_ms": 1.0, "store": "ram"}, {"p99_ms": 2.0, "store": "ram"}]
    assert run._median(rounds) == {"p99_ms": 2.0, "store": "ram"}


def test_what_fails_does_not_end_the_run() -> None:
    running = run.Run(Console(quiet=True), run.QUICK)

    def broken() -> None:
        raise CaseFailed("it broke")

    assert running.attempt("one", broken) is None
    assert running.attempt("two", lambda: 2) == 2
    assert running.failed == {"one": "it broke"}


def test_an_unknown_section_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--only", "engine,wheels"])
    with pytest.raises(SystemExit):
        run.main()
    assert "wheels is not one; allowed: wheel, engine" in capsys.readouterr().err
