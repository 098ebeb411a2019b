"""Subtle breakages of engine, ledger, election and runtime, each a small edit of the source.

`tests.simulation.mutate` tries them on the driver, the simulation and the unit tests, and says what finds each. An edit
must fit its module exactly once: when the code changes, `test_mutants.py` names those that no longer fit.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.simulation import mutants_durable as durable
from tests.simulation import mutants_engine as engine
from tests.simulation import mutants_fresh as fresh
from tests.simulation import mutants_more as more

__all__ = ["MUTANTS", "Mutant"]

_PACKAGE = "tickwheel_operator"


class Mutant(NamedTuple):
    """One breakage."""

    name: str
    module: str
    before: str
    after: str
    equivalent: str = ""
    """Why nothing can find it; empty: something must."""

    def source(self) -> str:
        """The module's source with the edit. Raises ValueError where it does not fit once."""
        module = importlib.import_module(f"{_PACKAGE}.{self.module}")
        source = Path(module.__file__ or "").read_text()
        if source.count(self.before) != 1:
            raise ValueError(f"{self.name}: {self.module} has {source.count(self.before)} places like {self.before!r}")
        return source.replace(self.before, self.after)

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        """Break the functions that are loaded, and put them back with `patch`."""
        module = importlib.import_module(f"{_PACKAGE}.{self.module}")
        file = module.__file__ or ""
        broken = _codes(compile(self.source(), file, "exec"))
        sound = _codes(compile(Path(file).read_text(), file, "exec"))
        functions = dict(_functions(module))
        changed = [name for name, code in broken.items() if name in functions and code != sound.get(name)]
        if not changed:
            raise ValueError(f"{self.name}: no function of {self.module} is changed by it")
        for name in changed:
            patch.setattr(functions[name], "__code__", broken[name])


def _codes(code: types.CodeType, path: str = "") -> dict[str, types.CodeType]:
    """The code of functions and methods, by qualified name."""
    found: dict[str, types.CodeType] = {}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType) and not constant.co_name.startswith("<"):
            name = f"{path}.{constant.co_name}" if path else constant.co_name
            if constant.co_flags & inspect.CO_NEWLOCALS and constant.co_flags & inspect.CO_OPTIMIZED:
                found[name] = constant
            else:
                found |= _codes(constant, name)
    return found


def _functions(module: types.ModuleType) -> Iterator[tuple[str, types.FunctionType]]:
    for holder, path in ((module, ""), *((c, f"{n}.") for n, c in vars(module).items() if _is_own_class(c, module))):
        for name, value in vars(holder).items():
            function = _unwrapped(value)
            if function is not None and function.__module__ == module.__name__:
                yield f"{path}{name}", function


def _is_own_class(value: object, module: types.ModuleType) -> bool:
    return isinstance(value, type) and value.__module__ == module.__name__


def _unwrapped(value: Any) -> types.FunctionType | None:
    """The function under a property, a static method or a decorator."""
    if isinstance(value, property):
        value = value.fget
    elif isinstance(value, functools.cached_property):
        value = value.func
    elif isinstance(value, staticmethod | classmethod):
        value = value.__func__
    while hasattr(value, "__wrapped__"):
        value = value.__wrapped__
    return value if isinstance(value, types.FunctionType) else None


_EDITS = {
    "engine.dispatch.leasing": engine.LEASING + more.LEASING,
    "engine.dispatch.failures": engine.FAILURES + more.FAILURES,
    "engine.dispatch.waiting": engine.WAITING + more.WAITING,
    "engine.dispatch.succession": engine.SUCCESSION,
    "engine.schedule.overdue": engine.OVERDUE,
    "engine.dispatch.retry": engine.RETRY,
    "engine.schedule.edits": engine.EDITS,
    "engine.dispatch.routing": engine.ROUTING,
    "engine.dispatch.queues": engine.QUEUES,
    "engine.schedule.overlap": engine.OVERLAP + more.OVERLAP,
    "engine.model.execution.backfill": durable.BACKFILL,
    "engine.model.execution.covered": durable.COVERED,
    "engine.schedule.backfilling": engine.BACKFILLING + more.BACKFILLING,
    "engine.requests": engine.REQUESTS + more.REQUESTS,
    "engine.core": engine.CORE + more.CORE,
    "engine.schedule.scheduler": engine.SCHEDULER + more.SCHEDULER,
    "engine.schedule.starters.clock": engine.CLOCK + more.CLOCK,
    "engine.schedule.starters.fixed_delay": engine.FIXED_DELAY + more.FIXED_DELAY,
    "engine.schedule.starters.completion": engine.COMPLETION + more.COMPLETION,
    "engine.model.state": durable.STATE,
    "engine.model.details": durable.DETAILS,
    "engine.model.snapshot": durable.SNAPSHOT,
    "ledger.splitting": durable.SPLITTING,
    "ledger.log": durable.LOG,
    "ledger.compaction": durable.COMPACTION,
    "ledger.replay": durable.REPLAY,
    "ledger.codec": durable.CODEC,
    "election.elector": durable.ELECTOR,
    "election.term": durable.TERM,
    "runtime.partition": durable.PARTITION,
    "runtime.checkpoints": durable.CHECKPOINTS,
    "runtime.leadership": durable.LEADERSHIP,
}
MUTANTS = tuple(
    Mutant(name, module, *edit)
    for by_module in (_EDITS, fresh.EDITS)
    for module, edits in by_module.items()
    for name, *edit in edits
)
