"""Tries the mutants: `python -m tests.simulation.mutate`, or with some of their names, or the end of a module's name.

Each is tried on the random driver, on the unit tests of its room and on the simulation, until one of them finds it.
Those that nobody finds are listed at the end, and the exit status is 1. All of them take half an hour on two cores.
"""

from __future__ import annotations

import argparse
import functools
import logging
import multiprocessing
import os
import queue
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.mutants_drawn import draw, drawn

__all__ = ["driver_finds", "main", "story_finds"]

_ROOT = Path(__file__).parents[2]
_TIME = "cron|calendar|triggers|filters|interval|wheel"


def _engine_tests(*, of_time: bool) -> tuple[str, ...]:
    paths = sorted((_ROOT / "tests/unit/engine").rglob("test_*.py"))
    return tuple(str(path) for path in paths if bool(re.search(_TIME, path.name)) is of_time)


_UNIT = {
    "engine": _engine_tests(of_time=False),
    "time": _engine_tests(of_time=True),
    "ledger": ("tests/unit/ledger", "tests/contract", "tests/simulation/test_stores.py"),
    "election": ("tests/unit/election", "tests/contract"),
    "runtime": ("tests/unit/runtime",),
}
_VARIABLE = "TICKWHEEL_MUTANT"
_PATIENCE_S = 240
DRIVER_SEEDS = 100
STORIES = 60
STEPS = 150


def driver_finds(seeds: Iterable[int]) -> str:
    """What the random driver finds first; empty: nothing."""
    from tests.simulation.engine_driver import EngineStory, small_bounds

    with pytest.MonkeyPatch.context() as patch:
        small_bounds(patch)
        for seed in seeds:
            try:
                EngineStory(seed).run(STEPS)
            except Exception as error:
                return f"driver, seed {seed}: {_in_short(error)}"
    return ""


def story_finds(seeds: Iterable[int]) -> str:
    """What the simulation finds first; empty: nothing."""
    from tests.simulation.engine_driver import small_bounds
    from tests.simulation.scenario import run_seed

    from tickwheel_operator.engine.schedule import groups
    from tickwheel_operator.engine.schedule.starters import clock

    with pytest.MonkeyPatch.context() as patch:
        small_bounds(patch)
        patch.setattr(groups, "AT_ONCE", 1)
        patch.setattr(clock, "AT_ONCE", 1, raising=False)
        for seed in seeds:
            try:
                run_seed(seed)
            except Exception as error:
                return f"simulation, seed {seed}: {_in_short(error)}"
    return ""


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:140]}".replace("\n", " ")


def _unit_finds(mutant: Mutant) -> str:
    room = "time" if re.search(_TIME, mutant.module) else mutant.module.partition(".")[0]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", "-p", __spec__.name]
    try:
        ran = subprocess.run(
            [*command, *_UNIT[room]], cwd=_ROOT, env=os.environ | {_VARIABLE: mutant.name}, capture_output=True,
            text=True, timeout=_PATIENCE_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "unit tests: they hang"
    if ran.returncode == 0:
        return ""
    failed = [line for line in ran.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return f"unit test: {failed[0].partition(' ')[2][:200]}" if failed else f"unit tests: exit {ran.returncode}"


def pytest_configure() -> None:
    """As a plugin of pytest: break the code before any test runs."""
    name = os.environ.get(_VARIABLE)
    if name:
        named = drawn(name) if name.startswith("drawn-") else next(m for m in MUTANTS if m.name == name)
        named.apply(pytest.MonkeyPatch())


def _apart(find: str, mutant: Mutant, seeds: range) -> str:
    """In a process of its own, which may hang."""
    answers: multiprocessing.Queue[str] = multiprocessing.Queue()

    def work() -> None:
        logging.disable(logging.CRITICAL)
        mutant.apply(pytest.MonkeyPatch())
        answers.put({"driver": driver_finds, "simulation": story_finds}[find](seeds))

    process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    process.start()
    try:
        return answers.get(timeout=_PATIENCE_S * max(1, len(seeds) // STORIES))
    except queue.Empty:
        return f"{find}: it hangs"
    finally:
        process.kill()
        process.join()


def find(mutant: Mutant, stories: int = STORIES) -> str:
    """Who finds it, and how; empty: nobody."""
    ways = {
        "driver": lambda: _apart("driver", mutant, range(DRIVER_SEEDS)),
        "unit": lambda: _unit_finds(mutant),
        "simulation": lambda: _apart("simulation", mutant, range(stories)),
    }
    order = ("driver", "unit", "simulation") if mutant.module.startswith("engine") else ("unit", "driver", "simulation")
    return next((found for way in order if (found := ways[way]())), "")


def main(arguments: list[str]) -> int:
    """Print who finds each mutant; 1 where somebody finds too little."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of mutants or of modules (`engine.model.state`); default: all")
    parser.add_argument("--stories", type=int, default=STORIES, help="seeds of the simulation, the last to be asked")
    parser.add_argument("--draw", type=int, default=0, help="so many that nobody chose, instead of those of the pool")
    parser.add_argument("--seed", type=int, default=1, help="of those that are drawn")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    chosen = [m for m in MUTANTS if not options.names or m.name in options.names or m.module in options.names]
    if options.draw:
        chosen = draw(options.draw, options.seed)
    began = time.monotonic()
    by: Counter[str] = Counter()
    nobody = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for mutant, found in zip(
            chosen, pool.map(functools.partial(find, stories=options.stories), chosen), strict=True
        ):
            by[found.partition(":")[0].partition(",")[0] or "nobody"] += 1
            print(f"{mutant.module}: {mutant.name}: {found or 'NOBODY'}", flush=True)
            if options.draw and not found:
                print(f"    {mutant.before!r}\n    {mutant.after!r}", flush=True)
            if not found and not mutant.equivalent:
                nobody.append(mutant.name)
    print(f"{len(chosen)} mutants in {time.monotonic() - began:.0f} s; found by {dict(by)}")
    print(f"found by nobody, and not equivalent: {', '.join(nobody) or 'none'}")
    return 1 if nobody else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
