"""The tables of a run: what was measured, beside what is aimed at and what the others need.

Called by `run.py` with plain figures, as they stand in the JSON file. A ratio is a peer's figure divided by
Tickwheel's: above 1, Tickwheel needs less. A figure that was not measured leaves its cell empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

__all__ = ["catalog_table", "latency_table", "load_table"]

Figures = Mapping[str, Any]
_ENOUGH = 10_000
"""Of fewer tasks, memory is that of code and buffers."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A figure of every contender; `path` leads to it in a contender's figures."""

    title: str
    path: tuple[str, ...]
    aim: str = ""
    ratio: bool = True
    scale: float = 1.0


def _rows(rates: list[str], bursts: str) -> list[Row]:
    rows = [
        Row(title="bytes per armed timer, all in", path=("fill", "bytes_per_timer")),
        Row(
            title="  of these the engine's own (the spec apart)",
            path=("fill", "engine_bytes_per_timer"),
            aim="400",
            ratio=False,
        ),
        Row(title="  all in, of tasks that share crons", path=("fill", "shared_bytes_per_timer"), ratio=False),
        Row(title="100,000 timers added, s", path=("fill", "add_100k_s"), aim="0.5"),
        Row(title="  one by one, s", path=("fill", "add_100k_one_by_one_s"), ratio=False),
        Row(
            title="  the same by a new leader, with its catalog, s", path=("fill", "arm_100k_s"), aim="0.5", ratio=False
        ),
        Row(title="idle CPU, %", path=("fill", "idle_cpu_percent"), aim="1", ratio=False),
        Row(title="engine: fire, lease and end a run, us", path=("fill", "run_us"), ratio=False),
    ]
    aims = {"1000": "2", "10000": "5"}
    for rate in rates:
        at = f"at {int(rate):,}/s"
        aim = aims.get(rate, "")
        rows += [
            Row(title=f"late {at}: instant to start, p50 ms", path=("lateness", rate, "p50_ms")),
            Row(title=f"late {at}: instant to start, p99 ms", path=("lateness", rate, "p99_ms"), aim=aim),
            Row(title=f"late {at}: instant to start, max ms", path=("lateness", rate, "max_ms")),
            Row(title=f"late {at}: decided, p50 ms", path=("lateness", rate, "decided_p50_ms"), ratio=False),
            Row(title=f"late {at}: decided, p99 ms", path=("lateness", rate, "decided_p99_ms"), ratio=False),
            Row(title=f"  its ledger's append {at}, p99 ms", path=("lateness", rate, "append_p99_ms"), ratio=False),
            Row(
                title=f"  its longest stop for a checkpoint {at}, ms",
                path=("lateness", rate, "checkpoint_slice_max_ms"),
                ratio=False,
            ),
            Row(title=f"CPU per fire {at}, us", path=("lateness", rate, "cpu_us_per_fire")),
            Row(title=f"not started {at}, %", path=("lateness", rate, "dropped_percent"), aim="0", ratio=False),
        ]
    return [
        *rows,
        Row(title=f"{bursts} at one instant: all started, ms", path=("burst", "all_started_ms"), aim="500"),
        Row(title=f"{bursts} at one instant: median start, ms", path=("burst", "p50_start_ms")),
        Row(title=f"{bursts} at one instant: not started", path=("burst", "dropped"), aim="0", ratio=False),
    ]


def _value(figures: Figures, path: tuple[str, ...]) -> float | None:
    found: Any = figures
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) else None


def _shown(value: float | None) -> str:
    if value is None or value != value:
        return ""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}"


def load_table(results: Mapping[str, Figures], titles: Mapping[str, str], burst: int) -> Table:
    """All contenders in one table, Tickwheel (`engine`) first, and the ratio of each peer to it."""
    rates = sorted({rate for figures in results.values() for rate in figures.get("lateness", {})}, key=int)
    ours = results.get("engine")
    peers = [name for name in results if name != "engine"]
    table = Table(title="Timers: median of the rounds; ratio = peer / Tickwheel (above 1: Tickwheel needs less)")
    table.add_column("figure")
    if ours is not None:
        table.add_column(titles["engine"], justify="right")
        table.add_column("aim", justify="right")
    for name in peers:
        table.add_column(titles[name], justify="right")
        if ours is not None:
            table.add_column("ratio", justify="right")
    for row in _rows(rates, f"{burst:,}"):
        mine = None if ours is None else _value(ours, row.path)
        cells = [] if ours is None else [_shown(mine), row.aim]
        for name in peers:
            theirs = _value(results[name], row.path)
            fewer = row.path[0] == "burst" and _value(results[name], ("burst", "tasks")) != burst
            cells.append(_shown(theirs) + (f" of {results[name]['burst']['tasks']:,}" if fewer and theirs else ""))
            if ours is not None:
                comparable = row.ratio and not fewer and mine and theirs and mine > 0 and theirs > 0
                cells.append(f"{theirs / mine:,.1f}" if comparable and mine and theirs else "")
        if any(cell for cell in cells[:1] + cells[2:]):
            table.add_row(row.title, *cells)
    return table


def latency_table(modes: Mapping[str, Figures]) -> Table:
    """With and without early leases, on the real API server."""
    titles = {"early": "early leases", "plain": "without"}
    table = Table(title="On a real API server: from instant to the handler's first line, durable")
    table.add_column("figure")
    for mode in modes:
        table.add_column(titles[mode], justify="right")
    table.add_column("aim", justify="right")
    both = set(modes) == {"early", "plain"}
    if both:
        table.add_column("without / early", justify="right")
    aims = {
        "p50_ms": "0.5",
        "p99_ms": "2",
        "dropped": "0",
        "twice": "0",
        "twice_by_one_attempt": "0",
        "early": "0",
        "all_started_ms": "500",
    }
    names = {
        "p50_ms": "p50 ms", "p99_ms": "p99 ms", "max_ms": "max ms",
        "bare_p50_ms": "a bare timer beside it, p50 ms", "bare_p99_ms": "a bare timer beside it, p99 ms",
        "dropped": "not started", "twice": "started twice",
        "twice_by_one_attempt": "of these by one attempt",
        "early": "started before its instant", "first_start_ms": "first start, ms", "all_started_ms": "all started, ms",
    }  # fmt: skip
    loads = list(dict.fromkeys(load for figures in modes.values() for load in figures))
    for load in loads:
        for key, name in names.items():
            values = [_value(figures, (load, key)) for figures in modes.values()]
            if all(value is None for value in values):
                continue
            size = next(figures[load]["tasks"] for figures in modes.values()) if load == "burst" else int(load)
            what = f"{size:,} at one instant" if load == "burst" else f"{size:,}/s"
            cells = [*map(_shown, values), aims.get(key, "")]
            if both:
                early, plain = values
                comparable = key.endswith("_ms") and early and plain and early > 0
                cells.append(f"{plain / early:.1f}" if comparable and plain and early else "")
            table.add_row(f"{what}: {name}", *cells)
    return table


def catalog_table(figures: Figures) -> Table:
    """Many ScheduledTask objects."""
    table = Table(title=f"{figures['tasks']:,} ScheduledTask objects on a real API server")
    for heading in ("figure", "first start", "restart"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    lives = (figures["first_life"], figures["second_life"])
    names = {
        "listed_s": "listed, s", "listed_cpu_s": "  CPU of that, s", "armed_s": "armed, s",
        "shown_s": "every status right, s", "cpu_s": "CPU, s",
        "resident_mb": "memory, MB", "peak_resident_mb": "memory at its peak, MB",
        "listed_worst_lag_ms": "longest stop of the loop while listing, ms",
        "armed_worst_lag_ms": "  while arming, ms", "shown_worst_lag_ms": "  while leading, ms",
        "idle_cpu_percent": "idle CPU, %",
        "idle_runs": "  runs that were due meanwhile",
    }  # fmt: skip
    for key, name in names.items():
        table.add_row(name, *(_shown(_value(life, (key,))) for life in lives))
    if figures["tasks"] >= _ENOUGH:
        table.add_row("bytes per task, all in", *(_shown(_bytes_per_task(life)) for life in lives))
    table.add_row(
        "requests to show it (one is a list)", *(_shown(float(sum(life["requests"].values()))) for life in lives)
    )
    return table


def _bytes_per_task(life: Figures) -> float:
    return float(life["resident_mb"] - life["resident_before_mb"]) * 2**20 / max(1, int(life["tasks"]))
