"""The timing wheel beside APScheduler 3 and a binary heap: memory, cost per operation, lateness.

    python benchmarks/timers/run.py --out result.json

Each case runs in its own process (`cases.py`), one after the other. What counts are the ratios of one run
on one machine; the figures themselves are the machine's. Lateness is at the mercy of whatever else runs, so
it is measured in several rounds that alternate between the schedulers, and the median round counts; the
range is printed beside it. Two and a half minutes with the defaults.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

CASES = Path(__file__).with_name("cases.py")
Result = dict[str, Any]


def run_case(*arguments: str) -> Result:
    finished = subprocess.run(
        [sys.executable, str(CASES), *arguments], capture_output=True, text=True, timeout=150, check=False
    )
    if finished.returncode != 0:
        raise SystemExit(f"the case '{' '.join(arguments)}' failed:\n{finished.stderr}")
    result: Result = json.loads(finished.stdout)
    return result


def scaled(result: Result, timers: int) -> Result:
    """Return what so many timers would take if memory and time grew in a straight line.

    That flatters APScheduler: its store inserts into a sorted list, which costs more the longer it is.
    """
    factor = timers / result["timers"]
    return result | {
        "timers": timers,
        "memory_mb": result["memory_mb"] * factor,
        "insert_total_s": result["insert_total_s"] * factor,
    }


def ratio(theirs: Result, ours: Result, figure: str) -> float | None:
    return theirs[figure] / ours[figure] if figure in theirs and figure in ours else None


def fill_table(fills: dict[str, Result]) -> Table:
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
    return table_of(table, fills, columns)


def lateness_table(medians: dict[str, Result], rounds: dict[str, list[Result]], rate: int) -> Table:
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


def median_of(rounds: list[Result]) -> Result:
    """Return each figure's median over the rounds."""
    return {figure: statistics.median(result[figure] for result in rounds) for figure in rounds[0]}


def table_of(table: Table, results: dict[str, Result], columns: tuple[tuple[str, str, str], ...]) -> Table:
    table.add_column("scheduler")
    for heading, _, _ in columns:
        table.add_column(heading, justify="right")
    for name, result in results.items():
        cells = [format(result[key], shape) if key in result else "" for _, key, shape in columns]
        table.add_row(name, *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write all figures to this file, as JSON")
    parser.add_argument("--timers", type=int, default=1_000_000, help="timers in the wheel and the heap")
    parser.add_argument("--peer-timers", type=int, default=100_000, help="jobs in APScheduler")
    parser.add_argument("--rate", type=int, default=1_000, help="fires a second, for lateness")
    parser.add_argument("--seconds", type=int, default=10, help="how long a round lasts")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of lateness for each scheduler")
    chosen = parser.parse_args()

    many, few = str(chosen.timers), str(chosen.peer_timers)
    wheel = run_case("fill", "wheel", "--timers", many)
    heap = run_case("fill", "heap", "--timers", many)
    wheel_few = run_case("fill", "wheel", "--timers", few)
    peer = run_case("fill", "apscheduler", "--timers", few)
    peer_scaled = scaled(peer, chosen.timers)
    pace = ("--rate", str(chosen.rate), "--seconds", str(chosen.seconds))
    schedulers = {
        "wheel, exact sleep": "wheel",
        "wheel, whole ms": "wheel-whole-ms",
        "APScheduler 3": "apscheduler",
    }
    rounds: dict[str, list[Result]] = {name: [] for name in schedulers}
    for _ in range(chosen.rounds):
        for name, scheduler in schedulers.items():
            rounds[name].append(run_case("lateness", scheduler, *pace))
    lateness = {name: median_of(results) for name, results in rounds.items()}

    fills = {
        "wheel": wheel,
        "binary heap": heap,
        "wheel, fewer": wheel_few,
        "APScheduler 3": peer,
        "APScheduler 3, scaled": peer_scaled,
    }
    late_wheel, late_peer = lateness["wheel, exact sleep"], lateness["APScheduler 3"]
    ratios = {
        "APScheduler memory / wheel memory, scaled": ratio(peer_scaled, wheel, "memory_mb"),
        "APScheduler arm / wheel arm": ratio(peer, wheel_few, "insert_us"),
        "APScheduler cancel / wheel cancel": ratio(peer, wheel_few, "cancel_us"),
        "heap memory / wheel memory": ratio(heap, wheel, "memory_mb"),
        "heap arm / wheel arm": ratio(heap, wheel, "insert_us"),
        "heap fire / wheel fire": ratio(heap, wheel, "fire_us"),
        "APScheduler lateness p50 / wheel": ratio(late_peer, late_wheel, "p50_ms"),
        "APScheduler lateness p99 / wheel": ratio(late_peer, late_wheel, "p99_ms"),
        "APScheduler CPU / wheel": ratio(late_peer, late_wheel, "cpu_s"),
        "APScheduler CPU / wheel, whole milliseconds": ratio(late_peer, lateness["wheel, whole ms"], "cpu_s"),
    }

    console = Console(width=120)
    console.print(fill_table(fills))
    console.print(lateness_table(lateness, rounds, chosen.rate))
    table = Table(title="Ratios (above 1: the wheel is better)")
    table.add_column("figure")
    table.add_column("ratio", justify="right")
    for name, value in ratios.items():
        table.add_row(name, "" if value is None else f"{value:.1f}")
    console.print(table)
    if chosen.out:
        report = {
            "machine": {
                "cpus": os.cpu_count(),
                "load_1m": os.getloadavg()[0],
                "python": platform.python_version(),
                "system": platform.system(),
            },
            "versions": {name: version(name) for name in ("apscheduler", "uvloop", "tickwheel-operator")},
            "fill": fills,
            "lateness": lateness,
            "lateness_rounds": rounds,
            "ratios": ratios,
        }
        chosen.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
