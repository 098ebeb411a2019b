"""The timing wheel alone, beside a binary heap and APScheduler 3: memory, cost per operation, lateness.

Called by `run.py`. Each case runs in its own process (`cases.py`), one after the other. Lateness is at the mercy of
whatever else runs, so it is measured in several rounds that alternate between the schedulers, and the median round
counts; the range is printed beside it.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.timers.case_process import figures_of
from rich.table import Table

__all__ = ["measure_wheel", "wheel_tables"]

CASES = Path(__file__).with_name("cases.py")
Result = dict[str, Any]


def _run(*arguments: object) -> Result:
    words = [str(argument) for argument in arguments]
    return figures_of([sys.executable, str(CASES), *words], what=" ".join(words), timeout_s=300)


def _scaled(result: Result, timers: int) -> Result:
    """Return what so many timers would take if memory and time grew in a straight line.

    That flatters APScheduler: its store inserts into a sorted list, which costs more the longer it is.
    """
    factor = timers / result["timers"]
    return result | {
        "timers": timers,
        "memory_mb": result["memory_mb"] * factor,
        "insert_total_s": result["insert_total_s"] * factor,
    }


def _ratio(theirs: Result, ours: Result, figure: str) -> float | None:
    return theirs[figure] / ours[figure] if figure in theirs and figure in ours else None


def _fill_table(fills: dict[str, Result]) -> Table:
    table = Table(title="Armed timers, spread over a day")
    columns = (
        ("timers", "timers", ",.0f"),
        ("memory MB", "memory_mb", ",.1f"),
        ("bytes each", "bytes_per_timer", ",.0f"),
        ("arm all s", "insert_total_s", ",.2f"),
        ("arm µs", "insert_us", ",.2f"),
        ("arm when full µs", "insert_when_full_us", ",.2f"),
        ("cancel µs", "cancel_us", ",.2f"),
        ("fire µs", "fire_us", ",.2f"),
    )
    return _table_of(table, fills, columns)


def _lateness_table(medians: dict[str, Result], rounds: dict[str, list[Result]], rate: int) -> Table:
    table = Table(title=f"Lateness at {rate:,} fires a second, on uvloop: median round (lowest-highest)")
    for heading in ("scheduler", "fired", "p50 ms", "p99 ms", "max ms", "CPU s", "wakes"):
        table.add_column(heading, justify="left" if heading == "scheduler" else "right")
    for name, median in medians.items():

        def with_range(figure: str, name: str = name, median: Result = median) -> str:
            all_rounds = [result[figure] for result in rounds[name]]
            return f"{median[figure]:.2f} ({min(all_rounds):.2f}-{max(all_rounds):.2f})"

        wakes = f"{median['wakes']:,.0f}" if "wakes" in median else ""
        fired = f"{median['fired']:,.0f}"
        table.add_row(name, fired, *map(with_range, ("p50_ms", "p99_ms", "max_ms", "cpu_s")), wakes)
    return table


def _median_of(rounds: list[Result]) -> Result:
    """Return each figure's median over the rounds."""
    return {figure: statistics.median(result[figure] for result in rounds) for figure in rounds[0]}


def _table_of(table: Table, results: dict[str, Result], columns: tuple[tuple[str, str, str], ...]) -> Table:
    table.add_column("scheduler")
    for heading, _, _ in columns:
        table.add_column(heading, justify="right")
    for name, result in results.items():
        cells = [format(result[key], shape) if key in result else "" for _, key, shape in columns]
        table.add_row(name, *cells)
    return table


def measure_wheel(
    *, timers: int, peer_timers: int, rate: int, seconds: int, rounds: int, say: Callable[[str], None]
) -> Result:
    """All of it, and the ratios; plain figures."""
    say(f"the wheel and a heap with {timers:,} timers, APScheduler with {peer_timers:,}")
    wheel, heap = (_run("fill", name, "--timers", timers) for name in ("wheel", "heap"))
    wheel_few, peer = (_run("fill", name, "--timers", peer_timers) for name in ("wheel", "apscheduler"))
    peer_scaled = _scaled(peer, timers)
    schedulers = {
        "wheel, exact sleep": "wheel",
        "wheel, whole ms": "wheel-whole-ms",
        "APScheduler 3": "apscheduler",
    }
    found: dict[str, list[Result]] = {name: [] for name in schedulers}
    for number in range(rounds):
        say(f"the wheel's lateness at {rate:,} fires a second, round {number + 1} of {rounds}")
        for name, scheduler in schedulers.items():
            found[name].append(_run("lateness", scheduler, "--rate", rate, "--seconds", seconds))
    lateness = {name: _median_of(results) for name, results in found.items()}
    late_wheel, late_peer = lateness["wheel, exact sleep"], lateness["APScheduler 3"]
    return {
        "rate": rate,
        "fill": {
            "wheel": wheel,
            "binary heap": heap,
            "wheel, fewer": wheel_few,
            "APScheduler 3": peer,
            "APScheduler 3, scaled": peer_scaled,
        },
        "lateness": lateness,
        "lateness_rounds": found,
        "ratios": {
            "APScheduler memory / wheel memory, scaled": _ratio(peer_scaled, wheel, "memory_mb"),
            "APScheduler arm / wheel arm": _ratio(peer, wheel_few, "insert_us"),
            "APScheduler cancel / wheel cancel": _ratio(peer, wheel_few, "cancel_us"),
            "heap memory / wheel memory": _ratio(heap, wheel, "memory_mb"),
            "heap arm / wheel arm": _ratio(heap, wheel, "insert_us"),
            "heap fire / wheel fire": _ratio(heap, wheel, "fire_us"),
            "APScheduler lateness p50 / wheel": _ratio(late_peer, late_wheel, "p50_ms"),
            "APScheduler lateness p99 / wheel": _ratio(late_peer, late_wheel, "p99_ms"),
            "APScheduler CPU / wheel": _ratio(late_peer, late_wheel, "cpu_s"),
            "APScheduler CPU / wheel, whole milliseconds": _ratio(late_peer, lateness["wheel, whole ms"], "cpu_s"),
        },
    }


def wheel_tables(result: Result) -> list[Table]:
    """What was armed, how late it was, and the ratios."""
    ratios = Table(title="Ratios (above 1: the wheel is better)")
    ratios.add_column("figure")
    ratios.add_column("ratio", justify="right")
    for name, value in result["ratios"].items():
        ratios.add_row(name, "" if value is None else f"{value:.1f}")
    return [
        _fill_table(result["fill"]),
        _lateness_table(result["lateness"], result["lateness_rounds"], result["rate"]),
        ratios,
    ]
