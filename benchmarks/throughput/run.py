"""Durable no-op dispatches a second, beside asynq, Celery and taskiq: `python benchmarks/throughput/run.py`.

Runs the sides one after another on this machine, prints one table with Tickwheel's ratio to each peer, and keeps all
figures as JSON. Only loopback is used, every run is bounded in count and time, and what was started is ended, on
Ctrl-C too. See README.md for what is measured and what is fair about it.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # started as a file, not with -m: the siblings are `benchmarks.throughput.*`
    sys.path.insert(0, str(ROOT))

from benchmarks.throughput import environment, machine  # noqa: E402
from benchmarks.throughput.processes import running  # noqa: E402
from benchmarks.throughput.tickwheel_drive import measure_tickwheel  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

TICKWHEEL = "tickwheel"


class SideFailed(RuntimeError):
    """A side has no figures; the message has its own last words."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What every side is asked to do."""

    dispatches: int
    """In the throughput stage."""
    rate: float
    """Dispatches a second in the latency stage."""
    seconds: float
    """Length of the latency stage."""
    timeout_s: float
    """Seconds that a stage may take, beyond what its rate asks for."""


def _peer(name: str) -> Callable[[Load], dict[str, Any]]:
    """A side that is measured by `peers/drive.py` in the peers' environment."""

    def measure(load: Load) -> dict[str, Any]:
        command = [
            str(environment.peers_python()), "-m", "benchmarks.throughput.peers.drive", "--peer", name,
            "--dispatches", str(load.dispatches), "--rate", str(load.rate), "--seconds", str(load.seconds),
            "--timeout", str(load.timeout_s),
        ]  # fmt: skip
        if name == "asynq":
            command += ["--asynq-binary", str(environment.asynq_binary())]
        with tempfile.TemporaryDirectory(prefix="tickwheel-bench-") as folder:
            log, out = Path(folder) / "log", Path(folder) / "side.json"
            with running([*command, "--out", str(out)], log=log, folder=ROOT, grace_s=60.0) as driver:
                # Both stages, each with its starts and stops; the driver's own deadlines come first.
                driver.wait(timeout=2 * (load.timeout_s + 120.0) + load.seconds)
            if driver.returncode != 0:
                raise SideFailed(f"{name} failed:\n{log.read_text()[-4000:]}")
            return dict(json.loads(out.read_text()))

    return measure


def _tickwheel(load: Load) -> dict[str, Any]:
    try:
        return measure_tickwheel(load.dispatches, load.rate, load.seconds, load.timeout_s)
    except (RuntimeError, OSError) as error:
        raise SideFailed(f"{TICKWHEEL} failed: {error}") from error


SIDES: Mapping[str, Callable[[Load], dict[str, Any]]] = {
    TICKWHEEL: _tickwheel,
    **{name: _peer(name) for name in ("asynq", "celery", "taskiq")},
}
"""How each side is measured: a function from the load to the figures (`figures.Side.to_json`)."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table: a figure of every side."""

    title: str
    figure: Callable[[Mapping[str, Any]], float]
    ratio: bool = True


def _cpu_total(side: Mapping[str, Any]) -> float:
    return float(sum(side["throughput"]["cpu_us_per_dispatch"].values()))


ROWS = (
    Row(title="dispatches/s", figure=lambda side: side["throughput"]["per_second"]),
    Row(title="submit to start, p50 ms", figure=lambda side: side["latency"]["start"]["p50_ms"]),
    Row(title="submit to start, p99 ms", figure=lambda side: side["latency"]["start"]["p99_ms"]),
    Row(title="submit to durable, p50 ms", figure=lambda side: side["latency"]["durable"]["p50_ms"]),
    Row(title="submit to durable, p99 ms", figure=lambda side: side["latency"]["durable"]["p99_ms"]),
    Row(title="CPU us/dispatch, all", figure=_cpu_total),
    Row(
        title="CPU us/dispatch at rate, all",
        figure=lambda side: sum(side["latency"]["cpu_us_per_dispatch"].values()),
    ),
    Row(
        title="store bytes received/dispatch",
        figure=lambda side: side["throughput"]["store_bytes_per_dispatch"]["received"],
    ),
    Row(
        title="store bytes appended/dispatch",
        figure=lambda side: side["throughput"]["store_bytes_per_dispatch"]["appended"],
    ),
    Row(
        title="producer late, p99 ms",
        figure=lambda side: side["latency"]["producer_late"]["p99_ms"],
        ratio=False,
    ),
)


def table(rounds: Mapping[str, Sequence[Mapping[str, Any]]], load: Load) -> Table:
    """The figures (medians over the rounds) and, where Tickwheel ran, its ratio to every peer."""
    peers = [name for name in rounds if name != TICKWHEEL]
    made = Table(title=f"{load.dispatches} dispatches as fast as possible; {load.rate:g}/s for {load.seconds:g} s")
    made.add_column("median of the rounds")
    for name in rounds:
        made.add_column(name, justify="right")
    compared = peers if TICKWHEEL in rounds else []
    for name in compared:
        made.add_column(f"{TICKWHEEL} / {name}", justify="right")
    for row in ROWS:
        medians = {name: statistics.median(row.figure(side) for side in sides) for name, sides in rounds.items()}
        cells = [f"{value:,.0f}" if value >= 100 else f"{value:.2f}" for value in medians.values()]
        for name in compared:
            peer = medians[name]
            cells.append(f"{medians[TICKWHEEL] / peer:.2f}" if row.ratio and peer else "")
        made.add_row(row.title, *cells)
    return made


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in SIDES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"{', '.join(unknown) or 'nothing'} is not a side; allowed: {', '.join(SIDES)}; for example asynq,taskiq"
        )
    return list(dict.fromkeys(names))


def _at_least(minimum: float, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{text} is too small: at least {minimum:g}")
        return value

    return parse


def main() -> int:
    """Measure the sides that were asked for; the exit status is 1 if one has failed."""
    # A polite kill ends everything, as Ctrl-C does; and a shell that starts us with `&` has Ctrl-C ignored.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    parser = argparse.ArgumentParser(description="Durable no-op dispatches per second, beside peers on Redis.")
    parser.add_argument("--dispatches", type=_at_least(100, int), default=20_000, help="in the throughput stage")
    parser.add_argument("--rate", type=_at_least(1, float), default=100.0, help="dispatches/s in the latency stage")
    parser.add_argument("--seconds", type=_at_least(1, float), default=20.0, help="length of the latency stage")
    parser.add_argument("--rounds", type=_at_least(1, int), default=1, help="times that every side is measured")
    parser.add_argument("--timeout", type=_at_least(1, float), default=180.0, help="seconds that a stage may take")
    parser.add_argument("--peers", type=_names, default=list(SIDES), help=f"of {','.join(SIDES)}")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    arguments = parser.parse_args()
    load = Load(
        dispatches=arguments.dispatches,
        rate=arguments.rate,
        seconds=arguments.seconds,
        timeout_s=arguments.timeout,
    )
    console = Console()
    facts = machine.describe()
    console.print(f"machine: {facts}")
    rounds: dict[str, list[dict[str, Any]]] = {}
    failed: dict[str, str] = {}
    try:
        for round_number in range(1, arguments.rounds + 1):
            for name in arguments.peers:
                if name in failed:
                    continue
                console.print(f"round {round_number} of {arguments.rounds}: {name}")
                try:
                    rounds.setdefault(name, []).append(SIDES[name](load))
                except (SideFailed, environment.EnvironmentFailed) as error:
                    failed[name] = str(error)
                    console.print(str(error), style="red", markup=False)
    except KeyboardInterrupt:
        console.print("interrupted: everything is stopped; nothing is saved", style="red")
        return 130
    measured = {name: sides for name, sides in rounds.items() if sides}
    if measured:
        console.print(table(measured, load))
    if arguments.out is not None:
        record = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": facts,
            "load": vars(load),
            "rounds": measured,
            "failed": failed,
        }
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
