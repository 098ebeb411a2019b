"""How many workers a pool needs now: from what runs, what waits, and what is known to come.

Pure; `autoscaling` asks every few seconds and decides over time. What comes is known from the tasks' triggers: the
engine gives the instants until a horizon (`engine.read.views.due_runs`), with how long such runs took. Invariants: the
answer keeps to the pool's bounds; it never falls because the backlog, the use or what comes grows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC

import msgspec

from tickwheel_operator.engine.read.views import Due
from tickwheel_operator.engine.triggers.instants import by_clock_of

__all__ = ["Bounds", "Coming", "Demand", "Need", "coming", "need"]

_EXACTLY = 1e-9
"""Shares of slots are sums of fractions: so little more than a whole number is that number."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What the pool's spec allows and aims at."""

    least: int
    most: int
    slots: int
    """Of one worker."""
    backlog_per_slot: int


class Coming(msgspec.Struct, frozen=True):
    """The runs of known instants until the horizon."""

    at_once: float = 0.0
    """The most that are open at one time, if each gets a slot at its instant. 0: nothing comes."""
    first_ms: int = 0
    """The first instant."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What the pool has to do."""

    used: int = 0
    """Slots in use."""
    backlog: int = 0
    """Dispatches that wait."""
    coming: Coming = Coming()


class Need(msgspec.Struct, frozen=True):
    """A number of workers, and why."""

    workers: int
    reason: str
    """One line for people."""


def coming(dues: Iterable[Due]) -> Coming:
    """Put what comes together.

    Runs of single instants are laid over each other in time. What repeats often is there all the time with its mean
    share of slots, and the largest group of it that fires together is there as a whole.
    """
    changes: dict[int, int] = {}
    groups: dict[tuple[int, int], tuple[int, float]] = {}
    first_ms = 0
    for due in dues:
        first_ms = min(first_ms or due.at_ms, due.at_ms)
        if due.every_ms:
            tasks, share = groups.get((due.at_ms, due.every_ms), (0, 0.0))
            groups[due.at_ms, due.every_ms] = (tasks + due.tasks, share + due.tasks * due.lasts_ms / due.every_ms)
        else:
            # At the same instant the next run may have the slot of the one that ends, but none is over at its own.
            end_ms = due.at_ms + max(1, due.lasts_ms)
            changes[due.at_ms] = changes.get(due.at_ms, 0) + due.tasks
            changes[end_ms] = changes.get(end_ms, 0) - due.tasks
    open_now = peak = 0
    for instant in sorted(changes):
        open_now += changes[instant]
        peak = max(peak, open_now)
    steady = sum(share for _, share in groups.values())
    burst = max((tasks - share for tasks, share in groups.values()), default=0.0)
    return Coming(steady + max(0.0, burst) + peak, first_ms)


def need(demand: Demand, bounds: Bounds) -> Need:
    """How many workers the demand needs now.

    Running work keeps its slots; a slot stands for `backlog_per_slot` waiting dispatches, those of a known instant too.
    """
    per_slot = bounds.backlog_per_slot
    at_once = demand.coming.at_once
    waiting = _up(demand.backlog / per_slot)
    due = _up(at_once / per_slot)
    slots = max(demand.used + waiting, due)
    wanted = _up(slots / bounds.slots)
    workers = min(max(wanted, bounds.least), bounds.most)
    size = f"{slots} {_many('slot', slots)}, {wanted} {_many('worker', wanted)} of {bounds.slots}"
    if not slots:
        reason = "nothing runs, waits or is due"
    elif due > demand.used + waiting:
        runs, first = _up(at_once), by_clock_of(UTC, demand.coming.first_ms)
        # The instant itself, not how far it is: the reason is the same at each look.
        reason = f"{runs} {_many('run', runs)} at once from {first:%H:%M:%S} UTC on, at {per_slot} per slot: {size}"
    else:
        in_use = [f"{demand.used} {_many('slot', demand.used)} in use"] if demand.used else []
        backlog = [f"backlog {demand.backlog} at {per_slot} per slot"] if demand.backlog else []
        reason = f"{', '.join(in_use + backlog)}: {size}"
    if wanted > bounds.most:
        reason += f"; maxReplicas is {bounds.most}"
    elif wanted < bounds.least:
        reason += f"; minReplicas is {bounds.least}"
    return Need(workers, reason)


def _many(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _up(share: float) -> int:
    return math.ceil(share - _EXACTLY)
