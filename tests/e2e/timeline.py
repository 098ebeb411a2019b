"""The ledger as a witness with a clock: when what was fired, leased and ended, and by whom.

The soak's `Book` folds the same facts for its account; this keeps their times too. All nodes of these tests share one
machine, so the leader's wall clock can be compared with the test's.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

from tests.integration.soak.account import Book, order_faults
from tests.integration.soak.tail import LedgerTail

from tickwheel_operator.ledger import facts as f

__all__ = ["Lease", "Timeline", "now_ms"]


@dataclass(frozen=True)
class Lease:
    token: int
    run: int
    worker: str
    """The worker's name: its pod."""
    at_ms: int


class _TimedBook(Book):
    def __init__(self) -> None:
        self.leases: dict[int, Lease] = {}
        self.ended_ms: dict[int, int] = {}
        self.failures: list[tuple[str, str]] = []
        """Namespace, and what was said, of each failed attempt."""
        self.namespaces: dict[str, str] = {}
        """Of each task, by its uid."""
        self._workers: dict[int, str] = {}
        super().__init__()

    def _fold(self, fact: f.Fact) -> None:
        super()._fold(fact)
        match fact:
            case f.TaskNamed():
                self.namespaces[fact.uid] = fact.namespace
            case f.WorkerNamed():
                self._workers[fact.worker] = fact.name
            case f.Leased():
                for token, run in enumerate(fact.dispatches, fact.first_token):
                    self.leases[token] = Lease(token, run, self._workers[fact.worker], self._now_ms)
            case f.Failed():
                lease = self.leases[fact.token]
                words = f"{fact.reason.name} {fact.error_type}: {fact.message}"
                told = f"{words} (attempt {fact.token} on {lease.worker}, at {self._now_ms})"
                self.failures.append((self.namespaces[self.runs[lease.run].task], told))

    def _end(self, number: int, state: str, token: int) -> None:
        super()._end(number, state, token)
        self.ended_ms[number] = self._now_ms


class Timeline:
    """What the ledger has said so far of one namespace; `read` brings it up to date."""

    def __init__(self, tail: LedgerTail, namespace: str) -> None:
        """The tail must have the ledger from its first segment on."""
        self._tail = tail
        self._namespace = namespace
        self._book = _TimedBook()

    def read(self) -> _TimedBook:
        self._book.read(self._tail.segments())
        return self._book

    def order_faults(self) -> list[str]:
        return order_faults(self._tail.segments())

    def failures(self) -> list[str]:
        """What each failed attempt said."""
        return [told for namespace, told in self.read().failures if namespace == self._namespace]

    def ended(self) -> int:
        """How many runs have ended."""
        book = self.read()
        return sum(self._is_ours(book.runs[number].task) for number in book.ended_ms)

    def _is_ours(self, uid: str) -> bool:
        return self._book.namespaces.get(uid) == self._namespace

    def open_on(self, worker: str) -> list[Lease]:
        """Attempts that run on the worker now, newest last."""
        book = self.read()
        return [
            lease
            for lease in book.leases.values()
            if lease.worker == worker
            and book.runs[lease.run].state == "open"
            and book.runs[lease.run].tokens[-1] == lease.token
        ]

    def redelivered(self, lost: list[Lease]) -> list[Lease | None]:
        """For each lost attempt the next one of its run, None while there is none; without those that had ended."""
        book = self.read()
        return [
            next((book.leases[token] for token in book.runs[lease.run].tokens if token > lease.token), None)
            for lease in lost
            if book.runs[lease.run].ended_by != lease.token
        ]

    def first_fire_after(self, at_ms: int, *, above_epoch: int = 0) -> int | None:
        """When an instant was fired for the first time after `at_ms`, in an epoch above the given one."""
        fires = (fired for fired, epoch in self.read().fires if fired > at_ms and epoch > above_epoch)
        return min(fires, default=None)

    def longest_pause_ms(self, from_ms: int, until_ms: int) -> int:
        """The longest time between two fires in the span."""
        fires = [from_ms, *sorted(at for at, _ in self.read().fires if from_ms < at < until_ms), until_ms]
        return max(after - before for before, after in itertools.pairwise(fires))

    def instant_faults(self, names: list[str], period_ms: int) -> list[str]:
        """Every instant of each fixedRate task between its first and its last has exactly one run; all runs ended well
        but the newest ones, which may still be open."""
        book, faults = self.read(), []
        by_name = {task.name: task for task in book.tasks.values() if self._is_ours(task.uid)}
        horizon_ms = now_ms() - 30_000
        for name in names:
            task = by_name[name]
            instants = sorted(task.runs)
            # To the horizon, not to its last one: a task that fires no more has lost all that came after.
            missing = set(range(instants[0], max(instants[-1], horizon_ms) + 1, period_ms)) - set(instants)
            if missing:
                faults.append(f"{name}: {len(missing)} instants without a run, such as {min(missing)}")
            if twice := [at for at, count in task.runs.items() if count > 1]:
                faults.append(f"{name}: {len(twice)} instants with more than one run, such as {twice[0]}")
            if task.skipped:
                faults.append(f"{name}: {task.skipped} instants were skipped")
        ours = [run for run in book.runs.values() if self._is_ours(run.task)]
        bad = [run for run in ours if run.state in ("failed", "cancelled")]
        stuck = [run for run in ours if run.state == "open" and run.scheduled_ms < horizon_ms]
        if bad:
            faults.append(f"{len(bad)} runs did not succeed")
        for run in stuck[:3]:
            held = [f"{book.leases[token].worker} at {book.leases[token].at_ms}" for token in run.tokens]
            name = next(task.name for task in book.tasks.values() if task.uid == run.task)
            faults.append(f"of {len(stuck)} runs open for 30 s: {name} of {run.scheduled_ms}, leased to {held}")
        return faults + self.order_faults()


def now_ms() -> int:
    return time.time_ns() // 1_000_000
