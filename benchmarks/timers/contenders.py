"""The contenders of the load shapes that all of them can take, each behind the same three questions.

Called by `run.py`. `fill` arms timers and reads what they cost, `lateness` runs a steady rate, `burst` makes many due
at one instant. Answers have the same names for everybody; what a contender cannot tell is left out.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.timers import quartz
from benchmarks.timers.case_process import figures_of

__all__ = ["CONTENDERS", "Contender", "Sizes"]

Figures = dict[str, Any]

_HERE = Path(__file__).parent
_CASE_S = 300.0
"""A case that takes longer has hung, or the machine is far too busy."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything."""

    timers: int
    """Armed in the engine; 1,000,000 is what it is for."""
    peer_timers: int
    """In APScheduler and Quartz's memory: their bytes and microseconds are per timer."""
    stored_timers: int
    """In Quartz's database, which takes 2 ms for each."""
    burst: int
    """Due at one instant."""
    stored_burst: int
    rates: tuple[int, ...]
    """Fires a second."""
    stored_rates: tuple[int, ...]
    seconds: int
    """Of each rate."""
    idle_s: int


class Contender(Protocol):
    """One scheduler. Every method may raise `CaseFailed`."""

    title: str
    rounds: int
    """It is measured at most so often."""

    def fill(self, sizes: Sizes) -> Figures: ...

    def rates(self, sizes: Sizes) -> tuple[int, ...]:
        """The rates that it is asked for."""
        ...

    def lateness(self, rate: int, sizes: Sizes) -> Figures: ...

    def burst(self, sizes: Sizes) -> Figures: ...


def _python(script: str, *arguments: object) -> Figures:
    words = [str(argument) for argument in arguments]
    return figures_of([sys.executable, str(_HERE / script), *words], what=" ".join([script, *words]), timeout_s=_CASE_S)


class Tickwheel:
    """The engine behind its host, with a ledger that syncs; workers in the same process."""

    title = "Tickwheel (SQLite)"
    rounds = 9

    def fill(self, sizes: Sizes) -> Figures:
        own = _python("engine_case.py", "arm", "--tasks", sizes.timers)
        shared = _python("engine_case.py", "arm", "--tasks", sizes.timers, "--triggers", "shared")
        idle = _python("engine_case.py", "idle", "--tasks", sizes.timers, "--seconds", sizes.idle_s)
        cost = _python("engine_case.py", "cost", "--tasks", min(100_000, sizes.timers))
        return {
            "timers": sizes.timers,
            "bytes_per_timer": own["bytes_per_task"],
            "engine_bytes_per_timer": own["engine_bytes_per_task"],
            "shared_bytes_per_timer": shared["bytes_per_task"],
            "add_100k_s": own["add_100k_s"],
            "add_100k_one_by_one_s": own["add_100k_one_by_one_s"],
            "arm_100k_s": own["arm_100k_s"],
            "idle_cpu_percent": idle["cpu_share"] * 100,
            "run_us": cost["run_us"],
            "parts": {"own": own, "shared": shared, "idle": idle, "cost": cost},
        }

    def rates(self, sizes: Sizes) -> tuple[int, ...]:
        return sizes.rates

    def lateness(self, rate: int, sizes: Sizes) -> Figures:
        pace = ("--rate", rate, "--seconds", sizes.seconds, "--armed", sizes.timers)
        found = _python("engine_case.py", "lateness", *pace)
        decided = {f"decided_{name}": value for name, value in found.pop("decided").items()}
        return {**found, **found.pop("start"), **decided}

    def burst(self, sizes: Sizes) -> Figures:
        return _python("engine_case.py", "burst", "--tasks", sizes.burst, "--triggers", "own", "--armed", sizes.timers)


class APScheduler:
    """APScheduler 3: memory job store, asyncio scheduler, coroutine jobs, on uvloop."""

    title = "APScheduler 3 (memory)"
    rounds = 9

    def fill(self, sizes: Sizes) -> Figures:
        found = _python("cases.py", "fill", "apscheduler", "--timers", sizes.peer_timers)
        return {**found, "add_100k_s": found["insert_us"] / 10}

    def rates(self, sizes: Sizes) -> tuple[int, ...]:
        return sizes.rates

    def lateness(self, rate: int, sizes: Sizes) -> Figures:
        found = _python("cases.py", "lateness", "apscheduler", "--rate", rate, "--seconds", sizes.seconds)
        fired = max(1, found["fired"])
        return {
            **found,
            "started": found["fired"],
            "dropped": found["expected"] - found["fired"],
            "cpu_us_per_fire": found["cpu_s"] * 1e6 / fired,
        }

    def burst(self, sizes: Sizes) -> Figures:
        found = _python("cases.py", "burst", "apscheduler", "--timers", sizes.burst)
        usual = _python("cases.py", "burst-default", "apscheduler", "--timers", sizes.burst)
        return {**found, "dropped_by_default": usual["dropped"]}


class Quartz:
    """Quartz with one of its stores."""

    def __init__(self, store: str, title: str) -> None:
        self.title = title
        # A burst in the database takes minutes.
        self.rounds = 1 if store == "jdbc" else 9
        self._store = store

    def fill(self, sizes: Sizes) -> Figures:
        timers = self._stored(sizes.stored_timers, sizes.peer_timers)
        found = quartz.run_case(self._store, "fill", timers, sizes.idle_s, timeout_s=_CASE_S)
        size = found.get("database_bytes_per_timer", found["bytes_per_timer"])
        return {
            **found,
            "bytes_per_timer": size,
            "add_100k_s": found["insert_us"] / 10,
            "idle_cpu_percent": found["idle_cpu_share"] * 100,
        }

    def rates(self, sizes: Sizes) -> tuple[int, ...]:
        return sizes.stored_rates if self._store == "jdbc" else sizes.rates

    def lateness(self, rate: int, sizes: Sizes) -> Figures:
        found = quartz.run_case(self._store, "lateness", rate, sizes.seconds, timeout_s=_CASE_S)
        return {**found, "cpu_us_per_fire": found["cpu_share"] * sizes.seconds * 1e6 / max(1, found["started"])}

    def burst(self, sizes: Sizes) -> Figures:
        jobs = self._stored(sizes.stored_burst, sizes.burst)
        return quartz.run_case(self._store, "burst", jobs, 120, timeout_s=_CASE_S)

    def _stored(self, stored: int, kept: int) -> int:
        return stored if self._store == "jdbc" else kept


CONTENDERS: dict[str, Contender] = {
    "engine": Tickwheel(),
    "apscheduler": APScheduler(),
    "quartz-ram": Quartz("ram", "Quartz (memory)"),
    "quartz-jdbc": Quartz("jdbc", "Quartz (PostgreSQL)"),
}
