"""Time at scale, beside other schedulers and on a real API server: `python benchmarks/timers/run.py [--quick]`.

| section | what it measures |
|---|---|
| wheel | the timing wheel alone, beside a binary heap and APScheduler 3 |
| engine | a partition with 1,000,000 armed tasks: memory, idle CPU, lateness, many tasks at one instant |
| apscheduler, quartz | the same loads in APScheduler 3, in Quartz's memory and in its clustered store on PostgreSQL |
| latency | instant to handler start on a real API server, with early leases and without |
| objects | 100,000 ScheduledTask objects on a real API server: start, memory, writes |

Everything runs one after the other, each case in processes of its own that end with the run, on loopback only. What
counts are the ratios of one run on one machine; README.md says what is fair about them. Ctrl-C ends everything.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # started as a file, not with -m: the siblings are `benchmarks.timers.*`
    sys.path.insert(0, str(ROOT))

from benchmarks.throughput import machine  # noqa: E402
from benchmarks.timers.case_process import CaseFailed  # noqa: E402
from benchmarks.timers.catalog import measure_catalog  # noqa: E402
from benchmarks.timers.contenders import CONTENDERS, Sizes  # noqa: E402
from benchmarks.timers.latency import measure_latency  # noqa: E402
from benchmarks.timers.quartz import THREADS  # noqa: E402
from benchmarks.timers.report import catalog_table, latency_table, load_table  # noqa: E402
from benchmarks.timers.wheel import measure_wheel, wheel_tables  # noqa: E402
from rich.console import Console  # noqa: E402

SECTIONS = ("wheel", "engine", "apscheduler", "quartz", "latency", "objects")

_PROBES = 3
"""The operator compares itself with the API server every 30 s, so that it is watched idling longer than an engine."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of everything, and how often."""

    sizes: Sizes
    rounds: int
    """Of each rate and of the burst, alternating between the contenders; the median counts."""
    latency_rates: tuple[int, ...]
    latency_seconds: int
    latency_burst: int
    workers: int
    """Worker processes on the real API server."""
    objects: int


FULL = Plan(
    sizes=Sizes(
        timers=1_000_000, peer_timers=100_000, stored_timers=10_000, burst=10_000, stored_burst=10_000,
        rates=(1_000, 10_000), stored_rates=(100, 1_000), seconds=10, idle_s=10,
    ),
    rounds=3, latency_rates=(100, 1_000), latency_seconds=20, latency_burst=10_000, workers=1, objects=100_000,
)  # fmt: skip
QUICK = Plan(
    sizes=Sizes(
        timers=50_000, peer_timers=10_000, stored_timers=300, burst=10_000, stored_burst=300, rates=(1_000,),
        stored_rates=(1_000,), seconds=3, idle_s=3,
    ),
    rounds=1, latency_rates=(100,), latency_seconds=4, latency_burst=0, workers=1, objects=500,
)  # fmt: skip


class Run:
    """One run: what was measured so far, and what failed."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self.console = console
        self.plan = plan
        self.measured: dict[str, Any] = {}
        self.failed: dict[str, str] = {}
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Progress, with the seconds since the run began."""
        self.console.print(f"[{time.monotonic() - self._began:5.0f} s] {text}", markup=False, highlight=False)

    def attempt(self, what: str, measure: Callable[[], Any]) -> Any:
        """Measure; None: it failed, which is told and kept, and the run goes on with the next."""
        try:
            return measure()
        except (CaseFailed, RuntimeError, OSError, AssertionError, TimeoutError) as error:
            self.failed[what] = str(error) or repr(error)
            self.console.print(f"{what}: {self.failed[what]}", style="red", markup=False)
            return None

    def loads(self, names: list[str]) -> None:
        """The loads that several schedulers take, so that neighbours in time are compared."""
        sizes = self.plan.sizes
        results: dict[str, dict[str, Any]] = {}
        for name in names:
            self.say(f"{CONTENDERS[name].title}: arming")
            filled = self.attempt(f"{name}, fill", partial(CONTENDERS[name].fill, sizes))
            results[name] = {"lateness": {}, **({"fill": filled} if filled else {})}
        rounds: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in names}
        for number in range(1, self.plan.rounds + 1):
            for name in names:
                contender = CONTENDERS[name]
                if number > contender.rounds:
                    continue
                for rate in contender.rates(sizes):
                    self.say(f"{contender.title}: {rate:,} fires a second, round {number} of {self.plan.rounds}")
                    found = self.attempt(f"{name}, {rate}/s", partial(contender.lateness, rate, sizes))
                    if found:
                        found["dropped_percent"] = 100 * found["dropped"] / found["expected"]
                        rounds[name].setdefault(str(rate), []).append(found)
                self.say(f"{contender.title}: many at one instant, round {number} of {self.plan.rounds}")
                found = self.attempt(f"{name}, burst", partial(contender.burst, sizes))
                if found:
                    rounds[name].setdefault("burst", []).append(found)
        for name, loads in rounds.items():
            for load, found in loads.items():
                median = _median(found)
                if load == "burst":
                    results[name]["burst"] = median
                else:
                    results[name]["lateness"][load] = median
        self.measured["loads"] = results
        self.measured["loads_rounds"] = rounds


def _median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Each number's median over the rounds; of anything else the first."""
    found: dict[str, Any] = {}
    for key, first in rounds[0].items():
        values = [one[key] for one in rounds if one.get(key) is not None]
        numbers = values and all(isinstance(value, int | float) and not math.isnan(value) for value in values)
        found[key] = statistics.median(values) if numbers else first
    return found


def _sections(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in SECTIONS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"{', '.join(unknown) or 'nothing'} is not one; allowed: {', '.join(SECTIONS)}; for example engine,latency"
        )
    return list(dict.fromkeys(names))


def _measure(run: Run, sections: list[str]) -> None:
    plan, sizes = run.plan, run.plan.sizes
    if "wheel" in sections:
        run.measured["wheel"] = run.attempt(
            "wheel",
            lambda: measure_wheel(
                timers=sizes.timers, peer_timers=sizes.peer_timers, rate=1_000, seconds=sizes.seconds,
                rounds=plan.rounds, say=run.say,
            ),
        )  # fmt: skip
    names = [name for name in CONTENDERS if name.partition("-")[0] in sections]
    if names:
        run.loads(names)
    if "latency" in sections:
        run.measured["latency"] = run.attempt(
            "latency",
            lambda: measure_latency(
                rates=plan.latency_rates, seconds=plan.latency_seconds, burst=plan.latency_burst, workers=plan.workers,
                say=run.say,
            ),
        )  # fmt: skip
    if "objects" in sections:
        run.measured["objects"] = run.attempt(
            "objects",
            lambda: measure_catalog(
                plan.objects, idle_s=_PROBES * sizes.idle_s, timeout_s=60 + plan.objects / 50, say=run.say
            ),
        )


def _show(run: Run) -> None:
    measured = run.measured
    if measured.get("wheel"):
        for table in wheel_tables(measured["wheel"]):
            run.console.print(table)
    if measured.get("loads"):
        titles = {name: contender.title for name, contender in CONTENDERS.items()}
        run.console.print(load_table(measured["loads"], titles, run.plan.sizes.burst))
    if measured.get("latency"):
        run.console.print(latency_table(measured["latency"]))
    if measured.get("objects"):
        run.console.print(catalog_table(measured["objects"]))


def _plan(arguments: argparse.Namespace) -> Plan:
    plan = QUICK if arguments.quick else FULL
    sizes = {"timers": arguments.timers, "burst": arguments.burst, "seconds": arguments.seconds}
    given = {
        "objects": arguments.objects, "rounds": arguments.rounds, "workers": arguments.workers,
        "latency_seconds": arguments.seconds, "latency_burst": arguments.burst,
    }  # fmt: skip
    return Plan(
        **{
            **{name: getattr(plan, name) for name in plan.__dataclass_fields__},
            **{name: value for name, value in given.items() if value is not None},
            "sizes": Sizes(**{**asdict(plan.sizes), **{k: v for k, v in sizes.items() if v is not None}}),
        }
    )


def main() -> int:
    """Measure the sections that were asked for; the exit status is 1 if anything failed."""
    # A polite kill ends everything, as Ctrl-C does; and a shell that starts us with `&` has Ctrl-C ignored.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, in less than four minutes")
    parser.add_argument("--only", type=_sections, default=list(SECTIONS), help=f"of {','.join(SECTIONS)}")
    parser.add_argument("--timers", type=int, help="tasks armed in the engine (1,000,000)")
    parser.add_argument("--burst", type=int, help="tasks that are due at one instant (10,000)")
    parser.add_argument("--seconds", type=int, help="how long each rate lasts (10, on the API server 20)")
    parser.add_argument("--rounds", type=int, help="times that each rate and the burst are measured (3)")
    parser.add_argument("--objects", type=int, help="ScheduledTask objects (100,000)")
    parser.add_argument("--workers", type=int, help="worker processes on the real API server (1)")
    parser.add_argument("--out", type=Path, help="file for the figures, as JSON")
    arguments = parser.parse_args()
    # A table of many columns is not to be folded because nobody watches.
    console = Console() if sys.stdout.isatty() else Console(width=180)
    plan = _plan(arguments)
    facts = machine.describe()
    console.print(f"machine: {facts}", markup=False)
    run = Run(console, plan)
    try:
        _measure(run, arguments.only)
    except KeyboardInterrupt:
        console.print("interrupted: everything is stopped; nothing is saved", style="red")
        return 130
    run.say("done")
    _show(run)
    if arguments.out is not None:
        packages = ("apscheduler", "uvloop", "tickwheel-operator")
        record = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": facts,
            "versions": {name: version(name) for name in packages},
            "plan": asdict(plan),
            "quartz_threads": THREADS,
            "measured": run.measured,
            "load_average_at_end": os.getloadavg(),
            "failed": run.failed,
        }
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")
    for what in run.failed:
        console.print(f"failed: {what}", style="red", markup=False)
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
